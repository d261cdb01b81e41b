//! The encryption of bodies of `MinIO`'s admin API (minio/madmin-go `encrypt.go`, minio/sio-go `writer.go`).
//!
//! A sealed body is `salt(32) ‖ id(1) ‖ nonce(8) ‖ fragments`. The key comes from the admin's secret key and the salt. Each
//! fragment holds up to 16 KiB of plaintext and a 16-byte tag. Its nonce is `nonce ‖ sequence number (u32, little endian)`; its
//! additional data is `flag ‖ T0`, where the flag is 0x80 on the last fragment and 0x00 before, and T0 is the tag of an empty
//! message under sequence number 0, which is not sent. The data start at sequence number 1.

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, AeadCore, KeyInit, Payload, array::Array, consts::U12},
};
use argon2::{Algorithm as Argon2Algorithm, Argon2, Params, Version};
use chacha20poly1305::ChaCha20Poly1305;
use rand::{TryRng, rngs::SysRng};
use sha2::Sha256;

const SALT_LEN: usize = 32;
const NONCE_LEN: usize = 8;
const HEADER_LEN: usize = SALT_LEN + 1 + NONCE_LEN;
const FRAGMENT_LEN: usize = 16 * 1024;
const TAG_LEN: usize = 16;
/// madmin-go `encrypt.go`: `pbkdf2Cost`.
const PBKDF2_ROUNDS: u32 = 8192;
/// madmin-go `encrypt.go`: time 1, memory 64 MiB, 4 threads.
const ARGON2: (u32, u32, u32) = (64 * 1024, 1, 4);

/// How a body is sealed; the server takes all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    /// Argon2id and AES-256-GCM: the strongest against guessing of a weak admin secret key, and some twenty times slower,
    /// because the server derives keys one at a time.
    #[value(name = "argon2id")]
    Argon2idAesGcm,
    /// Argon2id and ChaCha20-Poly1305. The server may answer with it; it is never chosen here.
    #[value(skip)]
    Argon2idChaCha20Poly1305,
    /// PBKDF2-HMAC-SHA256 with 8192 rounds and AES-256-GCM: fast; wants an admin secret key of high entropy, and TLS.
    #[default]
    #[value(name = "pbkdf2")]
    Pbkdf2AesGcm,
}

/// Why a body can't be sealed or opened. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than its header and one tag, or of an unknown algorithm.
    #[error("not a sealed body of MinIO's admin API")]
    Malformed,
    /// Another password, or changed on the way.
    #[error("the sealed body does not open with this secret key")]
    NotAuthentic,
    /// A cipher, the key derivation or the random source failed.
    #[error("the body could not be sealed")]
    Failed,
}

/// Seals a body under a new salt and nonce.
///
/// # Errors
/// [`SealError::Failed`] where the random source or the key derivation fails.
pub fn seal(algorithm: Algorithm, password: &str, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
    SysRng.try_fill_bytes(&mut salt).map_err(|_| SealError::Failed)?;
    SysRng.try_fill_bytes(&mut nonce).map_err(|_| SealError::Failed)?;
    seal_with(algorithm, password, salt, nonce, plaintext)
}

/// Opens a sealed body.
///
/// # Errors
/// [`SealError::Malformed`] or [`SealError::NotAuthentic`].
pub fn open(password: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (header, body) = sealed.split_at_checked(HEADER_LEN).ok_or(SealError::Malformed)?;
    let (salt, rest) = header.split_first_chunk::<SALT_LEN>().ok_or(SealError::Malformed)?;
    let (id, nonce) = rest.split_first().ok_or(SealError::Malformed)?;
    let algorithm = Algorithm::from_id(*id).ok_or(SealError::Malformed)?;
    let nonce = nonce.try_into().map_err(|_| SealError::Malformed)?;
    if body.len() < TAG_LEN {
        return Err(SealError::Malformed);
    }
    let stream = Stream::new(algorithm, password, salt, nonce)?;
    let fragments = body.chunks(FRAGMENT_LEN + TAG_LEN);
    let last = fragments.len() - 1;
    let mut plaintext = Vec::with_capacity(body.len());
    for (index, fragment) in fragments.enumerate() {
        plaintext.extend(stream.open(index, index == last, fragment)?);
    }
    Ok(plaintext)
}

fn seal_with(
    algorithm: Algorithm,
    password: &str,
    salt: [u8; SALT_LEN],
    nonce: [u8; NONCE_LEN],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let stream = Stream::new(algorithm, password, &salt, nonce)?;
    let mut sealed = [&salt[..], &[algorithm.id()], &nonce].concat();
    // An empty body is one empty fragment, a full last fragment is not followed by an empty one.
    let count = plaintext.len().div_ceil(FRAGMENT_LEN).max(1);
    for index in 0..count {
        let start = index * FRAGMENT_LEN;
        let end = (start + FRAGMENT_LEN).min(plaintext.len());
        sealed.extend(stream.seal(index, index == count - 1, &plaintext[start..end])?);
    }
    Ok(sealed)
}

impl Algorithm {
    fn id(self) -> u8 {
        match self {
            Self::Argon2idAesGcm => 0,
            Self::Argon2idChaCha20Poly1305 => 1,
            Self::Pbkdf2AesGcm => 2,
        }
    }

    fn from_id(id: u8) -> Option<Self> {
        [Self::Argon2idAesGcm, Self::Argon2idChaCha20Poly1305, Self::Pbkdf2AesGcm].into_iter().find(|a| a.id() == id)
    }

    fn derive_key(self, password: &str, salt: &[u8; SALT_LEN]) -> Result<[u8; 32], SealError> {
        let mut key = [0; 32];
        match self {
            Self::Pbkdf2AesGcm => pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, PBKDF2_ROUNDS, &mut key),
            Self::Argon2idAesGcm | Self::Argon2idChaCha20Poly1305 => {
                let (memory, time, threads) = ARGON2;
                let params = Params::new(memory, time, threads, Some(key.len())).map_err(|_| SealError::Failed)?;
                Argon2::new(Argon2Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(password.as_bytes(), salt, &mut key)
                    .map_err(|_| SealError::Failed)?;
            }
        }
        Ok(key)
    }
}

enum Cipher {
    AesGcm(Box<Aes256Gcm>),
    ChaCha20Poly1305(ChaCha20Poly1305),
}

struct Stream {
    cipher: Cipher,
    nonce: [u8; NONCE_LEN],
    /// T0, the tag that binds every fragment to this stream.
    binding: [u8; TAG_LEN],
}

impl Stream {
    fn new(algorithm: Algorithm, password: &str, salt: &[u8; SALT_LEN], nonce: [u8; NONCE_LEN]) -> Result<Self, SealError> {
        let key = Array(algorithm.derive_key(password, salt)?);
        let cipher = match algorithm {
            Algorithm::Argon2idChaCha20Poly1305 => Cipher::ChaCha20Poly1305(ChaCha20Poly1305::new(&key)),
            Algorithm::Argon2idAesGcm | Algorithm::Pbkdf2AesGcm => Cipher::AesGcm(Box::new(Aes256Gcm::new(&key))),
        };
        let mut stream = Self { cipher, nonce, binding: [0; TAG_LEN] };
        let tag = stream.encrypt(0, Payload { msg: &[], aad: &[] })?;
        stream.binding = tag.try_into().map_err(|_| SealError::Failed)?;
        Ok(stream)
    }

    fn seal(&self, index: usize, last: bool, msg: &[u8]) -> Result<Vec<u8>, SealError> {
        self.encrypt(sequence(index)?, Payload { msg, aad: &self.additional_data(last) })
    }

    fn open(&self, index: usize, last: bool, msg: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, aad) = (self.fragment_nonce(sequence(index)?), self.additional_data(last));
        let payload = Payload { msg, aad: &aad };
        match &self.cipher {
            Cipher::AesGcm(cipher) => cipher.decrypt(&nonce, payload),
            Cipher::ChaCha20Poly1305(cipher) => cipher.decrypt(&nonce, payload),
        }
        .map_err(|_| SealError::NotAuthentic)
    }

    fn encrypt(&self, sequence: u32, payload: Payload<'_, '_>) -> Result<Vec<u8>, SealError> {
        let nonce = self.fragment_nonce(sequence);
        match &self.cipher {
            Cipher::AesGcm(cipher) => cipher.encrypt(&nonce, payload),
            Cipher::ChaCha20Poly1305(cipher) => cipher.encrypt(&nonce, payload),
        }
        .map_err(|_| SealError::Failed)
    }

    fn fragment_nonce(&self, sequence: u32) -> Array<u8, U12> {
        let mut nonce = Array::<u8, <Aes256Gcm as AeadCore>::NonceSize>::default();
        nonce[..NONCE_LEN].copy_from_slice(&self.nonce);
        nonce[NONCE_LEN..].copy_from_slice(&sequence.to_le_bytes());
        nonce
    }

    fn additional_data(&self, last: bool) -> [u8; 1 + TAG_LEN] {
        let mut data = [0; 1 + TAG_LEN];
        data[0] = if last { 0x80 } else { 0x00 };
        data[1..].copy_from_slice(&self.binding);
        data
    }
}

/// The data start at sequence number 1.
fn sequence(index: usize) -> Result<u32, SealError> {
    u32::try_from(index).ok().and_then(|index| index.checked_add(1)).ok_or(SealError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Argon2idAesGcm, Algorithm::Argon2idChaCha20Poly1305, Algorithm::Pbkdf2AesGcm];

    /// Vectors made with madmin-go: password `minioadmin`, salt 00..1f, nonce 00..07.
    #[test]
    fn vectors_of_madmin_go() {
        let salt = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let nonce = std::array::from_fn(|i| u8::try_from(i).unwrap());
        for (algorithm, plaintext, expected) in [
            (ALL[0], &br#"{"a":1}"#[..], "778fddbd6d4a336b56342712bb85d16abcf07754a6bc54"),
            (ALL[1], br#"{"a":1}"#, "d83f0bc7c44b73add218aa4ac1b0121ca4f701a73cdb81"),
            (ALL[2], br#"{"a":1}"#, "0ad85d019c2246edbaa86811165c67edf0cea16a4f15b3"),
            (ALL[0], b"", "128c6e86e37e3edfbdead08e1fdf65bb"),
        ] {
            let sealed = seal_with(algorithm, "minioadmin", salt, nonce, plaintext).unwrap();
            assert_eq!(data_encoding::HEXLOWER.encode(&sealed[HEADER_LEN..]), expected, "{algorithm:?}");
            assert_eq!(open("minioadmin", &sealed).unwrap(), plaintext);
        }
    }

    #[test]
    fn what_is_sealed_opens_at_every_fragment_boundary() {
        for len in [0, 1, FRAGMENT_LEN - 1, FRAGMENT_LEN, FRAGMENT_LEN + 1, 3 * FRAGMENT_LEN] {
            let plaintext = vec![7; len];
            let sealed = seal(Algorithm::Pbkdf2AesGcm, "pw", &plaintext).unwrap();
            assert_eq!(sealed.len(), HEADER_LEN + len + TAG_LEN * len.div_ceil(FRAGMENT_LEN).max(1));
            assert_eq!(open("pw", &sealed).unwrap(), plaintext, "{len}");
        }
    }

    #[test]
    fn anything_changed_does_not_open() {
        let sealed = seal(Algorithm::Pbkdf2AesGcm, "pw", &vec![7; FRAGMENT_LEN + 5]).unwrap();
        assert_eq!(open("other", &sealed), Err(SealError::NotAuthentic));
        for index in [0, HEADER_LEN - 1, HEADER_LEN, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(open("pw", &changed), Err(SealError::NotAuthentic), "{index}");
        }
        let mut unknown = sealed.clone();
        unknown[SALT_LEN] = 3;
        assert_eq!(open("pw", &unknown), Err(SealError::Malformed));
        assert_eq!(open("pw", &sealed[..sealed.len() - TAG_LEN - 5]), Err(SealError::NotAuthentic), "cut off");
        assert_eq!(open("pw", &sealed[..HEADER_LEN + 3]), Err(SealError::Malformed));
        assert_eq!(open("pw", b""), Err(SealError::Malformed));
    }
}
