//! What a setting must look like. Each check says what is wrong in a few words; clap adds the name of the setting.

use std::{path::Path, time::Duration};

use jiff::SignedDuration;
use url::{Host, Url};

use crate::identity::is_label;

/// A duration such as `90s` or `1h 30m`, longer than nothing and at most a week.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a duration between 1ms and 7 days, such as 90s, 5m or 1h".to_owned();
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    let duration = duration.unsigned_abs_if_positive().ok_or_else(wrong)?;
    if duration > Duration::from_hours(7 * 24) { Err(wrong()) } else { Ok(duration) }
}

/// The duration of a Lease: the API has it in whole seconds.
pub(super) fn lease_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        lease if lease >= Duration::from_secs(3) && lease.subsec_nanos() == 0 => Ok(lease),
        _ => Err("write whole seconds, at least 3s".to_owned()),
    }
}

trait Positive {
    fn unsigned_abs_if_positive(self) -> Option<Duration>;
}

impl Positive for SignedDuration {
    fn unsigned_abs_if_positive(self) -> Option<Duration> {
        (self >= Self::from_millis(1)).then(|| self.unsigned_abs())
    }
}

/// The URL of an S3 endpoint: scheme, host and port, and nothing else.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    if url.path() != "/" {
        return Err("an S3 endpoint has no path".to_owned());
    }
    Ok(url)
}

/// An http or https URL without user, query and fragment.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write for example https://minio.example.com:9000"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the scheme must be http or https".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user or password in the URL is not used; there are settings for that".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL must end after its path".to_owned());
    }
    // Single quotes are legal in a host or path and nothing else: they would break the quotes of app.env.
    if url.as_str().contains('\'') {
        return Err("the URL must hold no quotes".to_owned());
    }
    Ok(url)
}

/// Whether what is sent to this URL stays on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The path of the producer API, with its two places.
pub(super) fn path_template(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/._-~{}".contains(c);
    if !text.starts_with('/') || !text.contains("{app_id}") || !text.chars().all(allowed) {
        return Err("write a path that begins with / and holds {app_id} and, if wanted, {producer}".to_owned());
    }
    Ok(text.to_owned())
}

/// A name that stands in a URL, a label or the name of a namespace (RFC 1123 label).
pub(super) fn label(text: &str) -> Result<String, String> {
    if !is_label(text) {
        return Err("write lowercase letters, digits and -, at most 63, with a letter or digit at both ends".to_owned());
    }
    Ok(text.to_owned())
}

/// A secret from a file: without the white space around it, and not empty.
pub(super) fn secret_in(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    match text.trim() {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        for wrong in ["", "90", "0s", "-1s", "8d", "1y", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lease_durations() {
        assert_eq!(lease_duration("15s"), Ok(Duration::from_secs(15)));
        for wrong in ["2s", "3500ms", "x"] {
            assert!(lease_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn endpoints() {
        assert_eq!(endpoint("http://minio:9000").unwrap().as_str(), "http://minio:9000/");
        for wrong in ["minio:9000", "ftp://minio", "http://a:b@minio", "http://minio/path", "http://minio?x", "http://mi'nio"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://127.0.0.2", true),
            ("http://[::1]:80", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn paths_and_labels() {
        assert!(path_template("/api/apps/{app_id}/env/producers/{producer}").is_ok());
        for wrong in ["api/{app_id}", "/api", "/api/{app_id}?x", "/api/{app_id}/ü"] {
            assert!(path_template(wrong).is_err(), "{wrong}");
        }
        assert!(label("storage").is_ok());
        for wrong in ["", "-a", "a-", "A", "a/b", &"a".repeat(64)] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }
}
