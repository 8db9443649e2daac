//! What a client authenticates with: its credentials, in an order of preference.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snocat_driver::core::auth::{
    Chain, ClientCertificate, ConnectingConfig, Credential, Ed25519Key, NoProof,
};

use crate::args::ClientArgs;
use crate::error::Error;
use crate::keys::identity;
use crate::methods::{Given, Method, Methods};
use crate::token;

impl ClientArgs {
    /// The files that it reads.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.authority, &self.identity, &self.cert, &self.key, &self.token_file];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// The methods that it offers, the preferred ones first: what `--auth` says, else all credentials together.
    pub fn methods(&self) -> Methods {
        let given = self.given();
        let have = given.iter().filter(|given| given.is).map(|given| given.method);
        match &self.auth {
            Some(methods) => methods.clone(),
            None if given.iter().any(|given| given.is) => Methods::together(have),
            None => Methods::together([Method::None]),
        }
    }

    fn given(&self) -> [Given; 3] {
        [
            Given { method: Method::Token, option: "--token-file", is: self.token_file.is_some() },
            Given { method: Method::Ed25519, option: "--identity", is: self.identity.is_some() },
            Given { method: Method::TlsClientCert, option: "--cert", is: self.cert.is_some() },
        ]
    }
}

/// Reads the credentials.
///
/// # Errors
/// `--auth` wants one that is not there, or a file cannot be read, is open to others, or holds something else.
pub fn read(arguments: &ClientArgs) -> Result<ConnectingConfig, Error> {
    let methods = arguments.methods().with(&arguments.given())?;
    let token = arguments.token_file.as_deref().map(token::client_secret).transpose()?.map(Arc::new);
    let key = arguments.identity.as_deref().map(identity::read).transpose()?;
    let key = key.map(|seed| Arc::new(Ed25519Key::from_seed(&seed)));
    let one = |method: &Method| -> Option<Arc<dyn Credential>> {
        Some(match method {
            Method::Token => token.clone()?,
            Method::Ed25519 => key.clone()?,
            Method::TlsClientCert => Arc::new(ClientCertificate),
            Method::None => Arc::new(NoProof),
        })
    };
    let together = |methods: &Vec<Method>| -> Option<Arc<dyn Credential>> {
        match methods.as_slice() {
            [alone] => one(alone),
            several => Some(Arc::new(Chain::of_credentials(several.iter().map(one).collect::<Option<_>>()?))),
        }
    };
    let methods = methods.0.iter().filter_map(together).collect();
    Ok(ConnectingConfig { methods, name: arguments.name.clone() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::args::{Arguments, Command};

    fn offered(options: &str) -> String {
        let line = format!("snocat client --driver h:1 --target t:1 {options}");
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Client(client) = arguments.command else { panic!("not the client") };
        client
            .methods()
            .with(&client.given())
            .map_or_else(|error| error.to_string(), |methods| methods.to_string())
    }

    #[test]
    fn everything_together_unless_something_else_is_said() {
        assert_eq!(offered(""), "none");
        assert_eq!(offered("--identity i"), "ed25519");
        assert_eq!(offered("--token-file t --identity i"), "ed25519+token");
        assert_eq!(offered("--token-file t --identity i --auth token,ed25519"), "token,ed25519");
        assert!(offered("--token-file t --auth ed25519").contains("--identity"));
        assert!(offered("--auth none --token-file t").contains("--token-file"));
    }
}
