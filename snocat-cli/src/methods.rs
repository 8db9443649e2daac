//! What `--auth` says: methods in an order of preference, some of them together.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A method that the command knows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Method {
    /// A client certificate.
    TlsClientCert,
    /// A private key whose public key the server has.
    Ed25519,
    /// A secret that both sides have.
    Token,
    /// Nothing is proven.
    None,
}

impl Method {
    /// All of them, the preferred ones first. Several together have this order, too.
    const ALL: [Self; 4] = [Self::TlsClientCert, Self::Ed25519, Self::Token, Self::None];

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsClientCert => "tls-client-cert",
            Self::Ed25519 => "ed25519",
            Self::Token => "token",
            Self::None => "none",
        }
    }
}

/// What is demanded or offered: one of these, the first that both sides have. Each is one method or several together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Methods(pub Vec<Vec<Method>>);

impl Methods {
    /// All of them together: a credential that was stolen is not enough.
    pub fn together(methods: impl IntoIterator<Item = Method>) -> Self {
        let mut methods: Vec<_> = methods.into_iter().collect();
        methods.sort_unstable();
        Self(vec![methods])
    }

    /// Whether it is among them, alone or with others.
    pub fn uses(&self, method: Method) -> bool {
        self.0.iter().any(|together| together.contains(&method))
    }
}

/// Whether an option says what a method needs.
pub struct Given {
    /// The method.
    pub method: Method,
    /// The option.
    pub option: &'static str,
    /// Whether it is there.
    pub is: bool,
}

impl Methods {
    /// These, if all that they need is given, and nothing else.
    ///
    /// # Errors
    /// A method lacks its option, or an option its method.
    pub fn with(self, given: &[Given]) -> Result<Self, Error> {
        if let Some(Given { method, option, .. }) =
            given.iter().find(|given| !given.is && self.uses(given.method))
        {
            let name = method.name();
            return Err(Error::usage(
                format_args!("--auth says `{name}`, which needs {option}"),
                format_args!("pass {option}, or leave `{name}` out"),
            ));
        }
        if let Some(Given { method, option, .. }) =
            given.iter().find(|given| given.is && !self.uses(given.method))
        {
            let name = method.name();
            return Err(Error::usage(
                format_args!("{option} is of no use: --auth does not say `{name}`"),
                format_args!("add `{name}` to --auth, or leave {option} out"),
            ));
        }
        Ok(self)
    }
}

impl FromStr for Methods {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lists = Vec::<Vec<Method>>::new();
        for together in text.split(',') {
            let mut methods = together.split('+').map(parse).collect::<Result<Vec<_>, _>>()?;
            methods.sort_unstable();
            if methods.windows(2).any(|pair| pair.first() == pair.last()) {
                return Err(format!("`{together}` names a method twice"));
            }
            if methods.len() > 1 && methods.contains(&Method::None) {
                return Err("`none` adds nothing to other methods".to_owned());
            }
            if lists.contains(&methods) {
                return Err(format!("`{together}` stands there twice"));
            }
            lists.push(methods);
        }
        Ok(Self(lists))
    }
}

fn parse(name: &str) -> Result<Method, String> {
    Method::ALL.into_iter().find(|method| method.name() == name).ok_or_else(|| {
        let known = Method::ALL.map(Method::name).join(", ");
        format!("`{name}` is not a method; there are {known}, and several together with `+` between them")
    })
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |together: &Vec<Method>| {
            together.iter().map(|method| method.name()).collect::<Vec<_>>().join("+")
        };
        f.write_str(&self.0.iter().map(name).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_in_order_and_together() {
        for (text, same) in [
            ("none", "none"),
            ("token,ed25519", "token,ed25519"),
            ("token+tls-client-cert,ed25519", "tls-client-cert+token,ed25519"),
        ] {
            assert_eq!(text.parse::<Methods>().unwrap().to_string(), same);
        }
        for (text, hint) in [
            ("", "is not a method"),
            ("tokens", "is not a method"),
            ("token,token", "twice"),
            ("token+token", "twice"),
            ("token+ed25519,ed25519+token", "twice"),
            ("token+none", "adds nothing"),
        ] {
            let error = text.parse::<Methods>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn without_a_word_from_the_user() {
        assert_eq!(Methods::together([Method::Token]).to_string(), "token");
        assert_eq!(
            Methods::together([Method::Token, Method::TlsClientCert, Method::Ed25519]).to_string(),
            "tls-client-cert+ed25519+token"
        );
    }
}
