//! Who asks at the front doors.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Who asks. Never taken from a request's body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Somebody whom Kubernetes knows. What they may do is asked of Kubernetes.
    User {
        /// The name, as the API server tells it.
        name: String,
        /// The groups, as the API server tells them.
        groups: Vec<String>,
    },
    /// Somebody for whom a trusted program on this machine vouches.
    Email(String),
    /// Somebody who names themselves.
    Guest(String),
}

impl Principal {
    /// How they are called in answers.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User { name, .. } | Self::Email(name) | Self::Guest(name) => name,
        }
    }

    /// How they are written on what is theirs: no two principals are written alike.
    #[must_use]
    pub fn owner(&self) -> String {
        match self {
            Self::User { name, .. } => format!("user:{name}"),
            Self::Email(address) => format!("email:{address}"),
            Self::Guest(id) => format!("guest:{id}"),
        }
    }

    /// The same as a label value, to list by.
    #[must_use]
    pub fn owner_label(&self) -> String {
        digest(&[&self.owner()])
    }
}

/// A digest of some texts, which fits into a label.
pub(super) fn digest(texts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    HEXLOWER.encode(&hasher.finalize())[..40].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_principals_are_taken_for_each_other() {
        let all = [
            Principal::User { name: "ann".to_owned(), groups: vec![] },
            Principal::Email("ann".to_owned()),
            Principal::Guest("ann".to_owned()),
            Principal::Guest("email:ann".to_owned()),
        ];
        let labels: std::collections::HashSet<_> = all.iter().map(Principal::owner_label).collect();
        assert_eq!(labels.len(), all.len());
    }
}
