//! Names that follow from the object alone, so that a retry after a crash finds the very same ones.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::crd::{AppBucket, BUCKET_NAME_ANNOTATION};

/// S3 allows 63 characters (Amazon S3 User Guide, "General purpose bucket naming rules"); 7 are the suffix.
const SLUG_MAX: usize = 56;
const SUFFIX_LEN: usize = 6;

/// The names of everything that belongs to one `AppBucket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `buk-` and 13 hexadecimal digits.
    pub bucket_id: String,
    /// The bucket's name: slug, `-`, 6 hexadecimal digits.
    pub bucket_name: String,
    /// `AKIA` and 16 characters of base32.
    pub access_key: String,
}

impl Identity {
    /// The identity of an object. Id and access key follow from its UID. So does the suffix of the bucket's name; the rest of
    /// the name is fixed by the status, or by the annotation that came with the finalizer, and only before that by the slug.
    ///
    /// A name with another suffix, in an edited status or annotation, is not believed: it would be somebody else's.
    #[must_use]
    pub fn of(object: &AppBucket) -> Self {
        let uid = object.uid().unwrap_or_default();
        let suffix = format!("-{}", &hex("bucket-name", &uid)[..SUFFIX_LEN]);
        let in_status = object.status.as_ref().and_then(|status| status.bucket_name.as_deref());
        let fixed = [in_status, object.annotation(BUCKET_NAME_ANNOTATION)]
            .into_iter()
            .flatten()
            .find(|name| name.strip_suffix(&suffix).is_some_and(|slug| clean(slug) == slug));
        let bucket_name = fixed.map_or_else(
            || format!("{}{suffix}", clean(object.spec.slug.as_deref().unwrap_or(&object.name_any()))),
            ToOwned::to_owned,
        );
        Self {
            bucket_id: bucket_id(&uid),
            bucket_name,
            access_key: format!("AKIA{}", &BASE32_NOPAD.encode(&digest("access-key", &uid))[..16]),
        }
    }
}

/// The bucket id of the object with that UID.
#[must_use]
pub fn bucket_id(uid: &str) -> String {
    format!("buk-{}", &hex("bucket-id", uid)[..13])
}

fn hex(purpose: &str, uid: &str) -> String {
    HEXLOWER.encode(&digest(purpose, uid))
}

fn digest(purpose: &str, uid: &str) -> [u8; 32] {
    Sha256::new().chain_update(purpose).chain_update([0]).chain_update(uid).finalize().into()
}

/// Whether it is an RFC 1123 label, as Kubernetes wants most names.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Lowercase letters, digits and single hyphens, none at the ends, at most 56 characters, not empty. So a name made of it
/// starts with none of S3's reserved prefixes but `sthree-`, which is kept apart by a letter.
pub(crate) fn clean(slug: &str) -> String {
    let mut cleaned = String::new();
    for c in slug.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_alphanumeric() {
            cleaned.push(c);
        } else if !cleaned.is_empty() && !cleaned.ends_with('-') {
            cleaned.push('-');
        }
    }
    if cleaned.starts_with("sthree-") {
        cleaned.insert(0, 'b');
    }
    cleaned.truncate(SLUG_MAX);
    let cleaned = cleaned.trim_end_matches('-');
    if cleaned.is_empty() { "bucket".to_owned() } else { cleaned.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::app_bucket;

    #[test]
    fn names_have_the_form_of_the_seed() {
        let identity = Identity::of(&app_bucket("demo"));
        assert!(identity.bucket_id.starts_with("buk-") && identity.bucket_id.len() == 17, "{identity:?}");
        assert!(identity.bucket_name.starts_with("demo-") && identity.bucket_name.len() == 11, "{identity:?}");
        assert!(identity.access_key.starts_with("AKIA") && identity.access_key.len() == 20, "{identity:?}");
    }

    #[test]
    fn names_follow_from_the_uid_alone() {
        let mut other = app_bucket("demo");
        assert_eq!(Identity::of(&other), Identity::of(&app_bucket("demo")));
        other.metadata.uid = Some("another".to_owned());
        let (a, b) = (Identity::of(&other), Identity::of(&app_bucket("demo")));
        assert!(a.bucket_id != b.bucket_id && a.bucket_name != b.bucket_name && a.access_key != b.access_key);
    }

    #[test]
    fn a_fixed_name_outlives_a_new_slug() {
        let mut object = app_bucket("demo");
        let before = Identity::of(&object).bucket_name;
        object.metadata.annotations = Some([(BUCKET_NAME_ANNOTATION.to_owned(), before.clone())].into());
        object.spec.slug = Some("renamed".to_owned());
        assert_eq!(Identity::of(&object).bucket_name, before);
    }

    #[test]
    fn a_forged_name_is_not_believed() {
        let mut object = app_bucket("demo");
        let honest = Identity::of(&object);
        object.status = Some(crate::crd::AppBucketStatus {
            bucket_name: Some("victim-123456".to_owned()),
            access_key: Some("AKIAVICTIM".to_owned()),
            ..Default::default()
        });
        assert_eq!(Identity::of(&object), honest);
    }

    #[test]
    fn any_slug_becomes_a_valid_bucket_name() {
        for (slug, expected) in [
            ("My.App_Cool--Thing", "my-app-cool-thing"),
            ("xn--pnycode", "xn-pnycode"),
            ("sthree-x", "bsthree-x"),
            ("..", "bucket"),
            ("ÄÖ", "bucket"),
            (&"a".repeat(70), &"a".repeat(56)),
            (&format!("{}-b", "a".repeat(55)), &"a".repeat(55)),
        ] {
            assert_eq!(clean(slug), expected, "{slug}");
            assert_eq!(clean(expected), expected, "{slug}");
        }
    }
}
