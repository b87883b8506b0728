//! Who a gRPC call comes from, and which namespaces that opens.
//!
//! ```text
//!             no key    a project's key         the admin key
//!  dev        all       all                     all
//!  server     none      the project's, only     all
//! ```
//!
//! A project's namespace is its id. `default` and registered namespaces are there without a project; in `server` mode they are the
//! admin's.
//!
//! Invariant: nothing but [`Caller::open`] makes a namespace of a name that came over gRPC.

use orchestrion_history::ids::Namespace;

pub use crate::registry::DEFAULT_NAMESPACE;
use crate::registry::ids::KeyDigest;
use crate::registry::{Identity, NamespaceState, Registry};

/// Whether calls need a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody who reaches the server may do everything: it is the user of this machine.
    Open,
    /// A key says what its caller may do.
    Keys {
        /// Opens everything, where there is one.
        admin: Option<KeyDigest>,
    },
}

/// Who calls. The gRPC server puts it into the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// May do everything: the server is open, or the admin calls.
    Trusted,
    /// Somebody with a project's key.
    Project(Identity),
}

/// Why a namespace stays closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The call names none.
    #[error("namespace is not set: name one, such as {DEFAULT_NAMESPACE}")]
    Unnamed,
    /// There is none of that name.
    #[error(
        "namespace {0} is not found: it is a project's id, {DEFAULT_NAMESPACE}, or one that was registered"
    )]
    Unknown(String),
    /// The key is another project's.
    #[error(
        "namespace {0} is closed to this key: a project's key opens the namespace of its project, and no other"
    )]
    Foreign(String),
}

impl Access {
    /// Who has this key; `None` when that is nobody.
    pub fn admit(&self, key: Option<&str>, registry: &Registry) -> Option<Caller> {
        let admin = match self {
            Self::Open => return Some(Caller::Trusted),
            Self::Keys { admin } => admin,
        };
        let digest = KeyDigest::of(key?);
        if *admin == Some(digest) {
            return Some(Caller::Trusted);
        }
        registry.identify(digest).map(Caller::Project)
    }
}

impl Caller {
    /// The namespace of that name, if there is one and it is open to this caller.
    pub fn open(&self, name: &str, registry: &Registry) -> Result<Namespace, Closed> {
        if name.is_empty() {
            return Err(Closed::Unnamed);
        }
        let unknown = || Closed::Unknown(name.to_owned());
        match self {
            Self::Project(own) if own.namespace.as_str() == name => Ok(own.namespace.clone()),
            // Whether there is one of that name is not this caller's business.
            Self::Project(_) => Err(Closed::Foreign(name.to_owned())),
            Self::Trusted => {
                let namespace = Namespace::parse(name).map_err(|_| unknown())?;
                if registry.namespace_state(&namespace) == NamespaceState::Registered {
                    Ok(namespace)
                } else {
                    Err(unknown())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_server_asks_nobody() {
        let registry = Registry::default();
        let caller = Access::Open.admit(None, &registry).unwrap();
        assert_eq!(caller, Caller::Trusted);
        assert_eq!(
            caller.open("default", &registry).unwrap().as_str(),
            "default"
        );
        assert_eq!(
            caller.open("p_none", &registry),
            Err(Closed::Unknown("p_none".into()))
        );
        assert_eq!(caller.open("", &registry), Err(Closed::Unnamed));
        assert!(caller.open("~system", &registry).is_err());
    }

    #[test]
    fn keys_open_what_is_theirs() {
        let registry = Registry::default();
        let access = Access::Keys {
            admin: Some(KeyDigest::of("admin")),
        };
        assert_eq!(access.admit(None, &registry), None);
        assert_eq!(access.admit(Some("guess"), &registry), None);
        assert_eq!(
            access.admit(Some("admin"), &registry),
            Some(Caller::Trusted)
        );
        let caller = Caller::Project(Identity {
            namespace: Namespace::parse("p_1").unwrap(),
            key_id: "k".to_owned(),
        });
        assert!(caller.open("p_1", &registry).is_ok());
        for other in ["p_2", "default"] {
            assert_eq!(
                caller.open(other, &registry),
                Err(Closed::Foreign(other.into()))
            );
        }
        let no_admin = Access::Keys { admin: None };
        assert_eq!(no_admin.admit(Some(""), &registry), None);
    }
}
