//! The five values that an app gets, and how they are written down.

use std::{collections::BTreeMap, fmt::Write as _};

use rand::{TryRng, rngs::SysRng};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The keys of the seed, in its order.
pub const KEYS: [&str; 5] = ["OF_S3_ENDPOINT", "OF_S3_BUCKET", "OF_S3_ACCESS_KEY", "OF_S3_SECRET_KEY", "OF_S3_REGION"];
/// The entry of the Secret that holds a dotenv file of the five, to be mounted at `/etc/openfactory/app.env`.
pub const DOTENV: &str = "app.env";
/// The one key whose value is drawn, and of which the Secret is the only home.
const SECRET_KEY: &str = KEYS[3];

const SECRET_KEY_LEN: usize = 36;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A secret key. It shows itself to nobody who does not ask for it by name.
#[derive(Clone, Debug)]
pub struct SecretKey(SecretString);

impl SecretKey {
    /// Draws a new one: 36 letters and digits (214 bits), which need no quoting in a shell, a URL or a dotenv file.
    ///
    /// # Errors
    /// Where the operating system's random source fails.
    pub fn draw() -> Result<Self, rand::rngs::SysError> {
        let mut key = String::with_capacity(SECRET_KEY_LEN);
        while key.len() < SECRET_KEY_LEN {
            let mut bytes = [0; 64];
            SysRng.try_fill_bytes(&mut bytes)?;
            // 248 is the largest multiple of 62 in a byte: what lies above would favour the first letters.
            let fair = bytes.into_iter().filter(|byte| *byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
            key.extend(fair.take(SECRET_KEY_LEN - key.len()));
        }
        Ok(Self(key.into()))
    }

    /// Takes over a key that stands in a Secret, if `MinIO` can accept it: 8 to 40 printable ASCII characters
    /// (minio/internal/auth, `IsSecretKeyValid`; the upper bound is the one it sets for its own), without white space, quotes
    /// and backslashes, which no two dotenv parsers read alike.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '`' | '\\');
        ((8..=40).contains(&key.len()) && key.chars().all(plain)).then(|| Self(key.into()))
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The five values of one bucket.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The URL that S3 clients use.
    pub endpoint: String,
    /// The bucket's name.
    pub bucket: String,
    /// The access key id.
    pub access_key: String,
    /// The secret key.
    pub secret_key: SecretKey,
    /// The region that S3 clients sign for.
    pub region: String,
}

impl Credentials {
    /// Key and value of each, in the order of the seed.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, &str); 5] {
        let Self { endpoint, bucket, access_key, secret_key, region } = self;
        [(KEYS[0], endpoint), (KEYS[1], bucket), (KEYS[2], access_key), (KEYS[3], secret_key.expose()), (KEYS[4], region)]
    }

    /// What the Secret holds: the five keys, and [`DOTENV`].
    #[must_use]
    pub fn secret_data(&self) -> BTreeMap<String, Vec<u8>> {
        let mut data: BTreeMap<_, _> =
            self.entries().into_iter().map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).collect();
        data.insert(DOTENV.to_owned(), self.dotenv().into_bytes());
        data
    }

    /// A dotenv file of the five.
    #[must_use]
    pub fn dotenv(&self) -> String {
        let mut file = String::new();
        for (key, value) in self.entries() {
            // Writing to a String does not fail.
            let _ = writeln!(file, "{key}={}", quote(value));
        }
        file
    }

    /// A digest of the five together with what else is published: equal where a publication would change nothing.
    #[must_use]
    pub fn digest(&self, more: &[&str]) -> String {
        let mut hasher = Sha256::new();
        for value in self.entries().into_iter().map(|(_, value)| value).chain(more.iter().copied()) {
            hasher.update((value.len() as u64).to_le_bytes());
            hasher.update(value);
        }
        data_encoding::HEXLOWER.encode(&hasher.finalize())
    }
}

/// The secret key in a Secret's data, if there is a usable one.
#[must_use]
pub fn secret_key_in(data: &BTreeMap<String, Vec<u8>>) -> Option<SecretKey> {
    SecretKey::parse(std::str::from_utf8(data.get(SECRET_KEY)?).ok()?)
}

/// A value as every dotenv reader takes it: bare where nothing in it means anything to any of them (`docker --env-file` knows
/// no quotes at all), else in single quotes, which shells, systemd and the dotenv libraries all read literally. The values are
/// URLs, names and keys that are checked before: none holds a quote or a line break.
fn quote(value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_./:@%+=,-".contains(c);
    if value.chars().all(bare) { value.to_owned() } else { format!("'{value}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(secret_key: &str) -> Credentials {
        Credentials {
            endpoint: "http://[::1]:9000".to_owned(),
            bucket: "demo-123456".to_owned(),
            access_key: "AKIAAAAAAAAAAAAAAAAA".to_owned(),
            secret_key: SecretKey::parse(secret_key).unwrap(),
            region: "us-east-1".to_owned(),
        }
    }

    #[test]
    fn a_dotenv_parser_reads_back_what_was_written() {
        // Everything printable that a key may hold, in pieces of at most 40.
        let plain: String = ('!'..='~').filter(|c| SecretKey::parse(&c.to_string().repeat(8)).is_some()).collect();
        assert_eq!(plain.len(), 90);
        for start in (0..plain.len() - 8).step_by(8) {
            let key = &plain[start..(start + 40).min(plain.len())];
            let written = credentials(key);
            let read: BTreeMap<_, _> = dotenvy::from_read_iter(written.dotenv().as_bytes()).collect::<Result<_, _>>().unwrap();
            let expected = written.entries().map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn keys_are_drawn_long_and_never_twice() {
        let keys: std::collections::HashSet<_> = (0..1000).map(|_| SecretKey::draw().unwrap().expose().to_owned()).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| key.len() == 36 && key.chars().all(|c| c.is_ascii_alphanumeric())));
    }

    #[test]
    fn unusable_keys_are_refused() {
        for key in ["short", "with space", "quote'inside", "line\nbreak", "tab\tinside", "ünicode-key", &"x".repeat(41)] {
            assert!(SecretKey::parse(key).is_none(), "{key}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", credentials("do-not-show-me")).contains("do-not-show-me"));
    }

    #[test]
    fn the_digest_tells_any_change() {
        let base = credentials("do-not-show-me");
        let mut moved = base.clone();
        moved.endpoint = "http://elsewhere:9000".to_owned();
        assert_eq!(base.digest(&["x"]), base.clone().digest(&["x"]));
        assert_ne!(base.digest(&["x"]), moved.digest(&["x"]));
        assert_ne!(base.digest(&["x", "y"]), base.digest(&["xy"]));
    }
}
