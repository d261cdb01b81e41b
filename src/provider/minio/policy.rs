//! The policy of one bucket.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::Grant;

/// What an app may do with its bucket. Not in it: to delete the bucket, or to change its tags (our mark) or its policy.
const BUCKET_ACTIONS: [&str; 6] = [
    "s3:GetBucketLocation",
    "s3:GetBucketTagging",
    "s3:GetBucketVersioning",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
];
/// What an app may do with the objects in it.
const OBJECT_ACTIONS: [&str; 13] = [
    "s3:AbortMultipartUpload",
    "s3:DeleteObject",
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersion",
    "s3:DeleteObjectVersionTagging",
    "s3:GetObject",
    "s3:GetObjectAttributes",
    "s3:GetObjectTagging",
    "s3:GetObjectVersion",
    "s3:GetObjectVersionTagging",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
    "s3:PutObjectTagging",
];
/// `MinIO` lets every user make service accounts of its own unless that is denied (GHSA-jjjj-jwhf-8rgr).
const DENIED_ADMIN_ACTIONS: [&str; 4] =
    ["admin:CreateServiceAccount", "admin:ListServiceAccounts", "admin:RemoveServiceAccount", "admin:UpdateServiceAccount"];

/// The policy document. Its `ID` is the owner's mark.
pub(super) fn document(grant: &Grant) -> Value {
    let arn = format!("arn:aws:s3:::{}", grant.bucket);
    json!({
        "ID": grant.owner.mark(),
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": BUCKET_ACTIONS, "Resource": [arn] },
            { "Effect": "Allow", "Action": OBJECT_ACTIONS, "Resource": [format!("{arn}/*")] },
            { "Effect": "Deny", "Action": DENIED_ADMIN_ACTIONS },
        ],
    })
}

/// Whether two documents mean the same: lists in a policy are sets, and empty entries may be left out.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    normalized(a) == normalized(b)
}

fn normalized(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), normalized(value)))
            .filter(|(_, value)| {
                !matches!(value, Value::Null) && *value != json!([]) && *value != json!("") && *value != json!({})
            })
            .collect(),
        Value::Array(items) => {
            let sorted: BTreeSet<String> = items.iter().map(|item| normalized(item).to_string()).collect();
            sorted.into_iter().collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::grant;

    #[test]
    fn a_policy_names_its_own_bucket_and_no_other() {
        let grant = grant("demo");
        let document = document(&grant);
        for statement in document["Statement"].as_array().unwrap() {
            for resource in statement["Resource"].as_array().unwrap_or(&vec![]) {
                let path = resource.as_str().unwrap().strip_prefix("arn:aws:s3:::").unwrap().to_owned();
                assert!(path == grant.bucket || path == format!("{}/*", grant.bucket), "{path}");
            }
        }
    }

    #[test]
    fn order_and_empty_entries_do_not_matter_and_anything_else_does() {
        let a = document(&grant("demo"));
        let mut b = a.clone();
        b["Statement"].as_array_mut().unwrap().reverse();
        b["Statement"][1]["Action"].as_array_mut().unwrap().reverse();
        b["Statement"][1]["Sid"] = json!("");
        assert!(same(&a, &b));
        b["Statement"][1]["Action"].as_array_mut().unwrap().push(json!("s3:*"));
        assert!(!same(&a, &b));
        assert!(!same(&a, &document(&grant("other"))));
    }
}
