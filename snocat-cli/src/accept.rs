//! Whom a server lets in: its files of credentials, as they are now. Read at the start, and again when they change.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_lite::future;
use snocat_driver::core::auth::{
    Authenticator, AuthorizedKey, AuthorizedKeys, Chain, ClientCertificates, ListeningConfig, NoProof,
    TokenKey, TokenKeys,
};
use snocat_driver::{ClientAuthorities, Runtime, ServerTls, TunnelServer};

use crate::args::ServerArgs;
use crate::away::Away;
use crate::error::Error;
use crate::files;
use crate::keys::{KeyFile, authorized};
use crate::methods::{Given, Method, Methods};
use crate::server::within;
use crate::signal::Reread;
use crate::watch::{NoAnswer, PATIENCE, Watch};
use crate::{output, tls, token};

/// How often tunnels are asked whether their credentials still stand, where time alone can change the answer.
const REVIEW: Duration = Duration::from_secs(5);

/// How often a file is tried again that could not be read: it may not have been the file's fault (no descriptors were
/// left, a file system was away), and what it withdraws must not live on until the next edit.
const RETRY: Duration = Duration::from_secs(1);

/// What a server shows, and whom it lets in.
pub struct Accepted {
    methods: Methods,
    tokens: Option<Source<KeyFile<TokenKey>>>,
    keys: Option<Source<KeyFile<AuthorizedKey>>>,
    authorities: Option<Source<Option<Arc<ClientAuthorities>>>>,
    tls: ServerTls,
    certificate: (PathBuf, PathBuf),
    certificate_failed: bool,
    /// A descriptor that is free whenever files are read: visitors may have used up all others, and must not be able to
    /// put a withdrawal off.
    spare: Option<File>,
    watch: Watch,
}

/// Reads a file of credentials.
type Read<T> = fn(&Path) -> Result<T, Error>;

/// A file, and what it held when it was last read without an error.
struct Source<T> {
    path: PathBuf,
    held: T,
    read: Read<T>,
    /// The last attempt to read it again was in vain.
    failed: bool,
}

impl<T> Source<T> {
    fn new(path: &Option<PathBuf>, read: Read<T>) -> Result<Option<Self>, Error> {
        let source = |path: &PathBuf| Ok(Self { path: path.clone(), held: read(path)?, read, failed: false });
        path.as_ref().map(source).transpose()
    }

    /// How to read it again, if that is to be done.
    fn question(
        &self,
        watch: &Watch,
        attempt: Attempt,
    ) -> Option<impl FnOnce() -> Result<T, Error> + use<T>> {
        let asked = watch.watches(&self.path) && (self.failed || attempt == Attempt::First);
        let (path, read) = (self.path.clone(), self.read);
        asked.then_some(move || files::regular(&path).and_then(|()| read(&path)))
    }

    /// Takes in what reading it again has come to. What cannot be read changes nothing.
    fn renew(&mut self, reading: Option<Result<T, Error>>, attempt: Attempt) {
        match reading {
            None => {}
            Some(Ok(held)) => (self.held, self.failed) = (held, false),
            Some(Err(error)) => self.failed = stays(&error, attempt),
        }
    }
}

/// Whether files are read because they have changed, or because that failed.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Attempt {
    First,
    Again,
}

/// Why files are looked after.
enum Woken {
    /// They have changed, or are to be read again.
    Changed,
    /// They cannot be looked at.
    NoAnswer,
    /// It is time to look after those that could not be read, or after tunnels.
    Pause,
}

/// What reading the files again has come to, as far as they were to be read.
struct Readings {
    tokens: Option<Result<KeyFile<TokenKey>, Error>>,
    keys: Option<Result<KeyFile<AuthorizedKey>, Error>>,
    authorities: Option<Result<Option<Arc<ClientAuthorities>>, Error>>,
    certificate: Option<Result<(), Error>>,
    spare: Option<File>,
}

/// Reading failed, which is told once.
fn stays(error: &Error, attempt: Attempt) -> bool {
    if attempt == Attempt::First {
        output::warning(format_args!("{error}; what was read before stays in force"));
    }
    true
}

/// A descriptor to give up when one is needed. It can always be had, whatever becomes of the files.
fn spare() -> Option<File> {
    File::open(if cfg!(windows) { "NUL" } else { "/dev/null" }).ok()
}

impl Accepted {
    /// Reads everything.
    ///
    /// # Errors
    /// Nobody decided about authentication, or a file is missing, is open to others, or holds nothing.
    pub fn read(arguments: &ServerArgs) -> Result<Self, Error> {
        let methods = methods(arguments)?;
        let ServerArgs { token_file, authorized_keys, client_ca, cert, key, .. } = arguments;
        let files =
            [token_file.as_ref(), authorized_keys.as_ref(), client_ca.as_ref(), Some(cert), Some(key)];
        // Before they are read, so that a change in between is noticed.
        let watch = Watch::new(files.into_iter().flatten().cloned());
        let accepted = Self {
            methods,
            tokens: Source::new(token_file, token::read)?,
            keys: Source::new(authorized_keys, authorized::read)?,
            authorities: Source::new(client_ca, tls::client_authorities)?,
            tls: tls::server(cert, key)?,
            certificate: (cert.clone(), key.clone()),
            certificate_failed: false,
            spare: spare(),
            watch,
        };
        accepted.somebody()?;
        Ok(accepted)
    }

    /// A file that lets nobody in is a mistake at the start, and a withdrawal of everything later.
    fn somebody(&self) -> Result<(), Error> {
        let now = SystemTime::now();
        if let Some(tokens) = &self.tokens {
            tokens.held.some_valid(now, "token", token::ADVICE)?;
        }
        if let Some(keys) = &self.keys {
            keys.held.some_valid(now, "key", authorized::FORM)?;
        }
        match &self.authorities {
            Some(Source { path, held: None, .. }) => Err(Error::failed(
                format_args!("{} holds no certificate", path.display()),
                "give the certificates of those who issue certificates for clients, PEM",
            )),
            _ => Ok(()),
        }
    }

    /// What the server shows. What is read later reaches it, too.
    pub fn tls(&self) -> ServerTls {
        self.tls.clone()
    }

    /// The methods, with the credentials that are valid now.
    pub fn config(&self) -> ListeningConfig {
        let now = SystemTime::now();
        self.tls.ask_for_certificates(self.methods.uses(Method::TlsClientCert));
        let tokens = self.tokens.as_ref().map(|tokens| Arc::new(TokenKeys::new(tokens.held.valid(now))));
        let keys = self.keys.as_ref().map(|keys| Arc::new(AuthorizedKeys::new(keys.held.valid(now))));
        let authorities = self.authorities.as_ref().and_then(|authorities| authorities.held.clone());
        let one = |method: &Method| -> Option<Arc<dyn Authenticator>> {
            Some(match method {
                Method::Token => tokens.clone()?,
                Method::Ed25519 => keys.clone()?,
                Method::TlsClientCert => Arc::new(ClientCertificates::new(authorities.clone()?)),
                Method::None => Arc::new(NoProof),
            })
        };
        let together = |methods: &Vec<Method>| -> Option<Arc<dyn Authenticator>> {
            match methods.as_slice() {
                [alone] => one(alone),
                // Without one of them nobody gets in by all.
                several => {
                    Some(Arc::new(Chain::of_authenticators(several.iter().map(one).collect::<Option<_>>()?)))
                }
            }
        };
        ListeningConfig { methods: self.methods.0.iter().filter_map(together).collect() }
    }

    /// Lets everybody in.
    pub fn everybody(&self) -> bool {
        self.methods.uses(Method::None)
    }

    /// Keeps a running server up to date, for good.
    pub async fn keep_current<R: Runtime>(
        mut self,
        runtime: &R,
        away: &Away,
        server: &TunnelServer<R>,
        reread: &Reread,
    ) {
        loop {
            self.watch.set_expiry(self.next_expiry());
            let pause = if self.failed() { Some(RETRY) } else { self.authorities.as_ref().map(|_| REVIEW) };
            let changed = async {
                match self.watch.changed(runtime, away).await {
                    Ok(()) => Woken::Changed,
                    Err(NoAnswer) => Woken::NoAnswer,
                }
            };
            let wanted = async {
                reread.requested().await;
                Woken::Changed
            };
            let pause = async {
                match pause {
                    Some(pause) => runtime.sleep_until(runtime.now() + pause).await,
                    None => future::pending().await,
                }
                Woken::Pause
            };
            let renewed = match future::or(future::or(wanted, changed), pause).await {
                Woken::Changed => self.renew(runtime, away, Attempt::First).await,
                Woken::Pause if self.failed() => self.renew(runtime, away, Attempt::Again).await,
                Woken::Pause => false,
                Woken::NoAnswer => {
                    self.no_answer();
                    false
                }
            };
            if !renewed {
                server.review();
                continue;
            }
            server.set_authentication(self.config());
            if !self.failed() {
                output::note("read the files of certificates and credentials again");
            }
        }
    }

    /// Some files could not be read, and are to be tried again.
    fn failed(&self) -> bool {
        self.certificate_failed
            || self.tokens.as_ref().is_some_and(|tokens| tokens.failed)
            || self.keys.as_ref().is_some_and(|keys| keys.failed)
            || self.authorities.as_ref().is_some_and(|authorities| authorities.failed)
    }

    /// No file can be read now.
    fn no_answer(&mut self) {
        if !self.failed() {
            let what =
                "the files of certificates and credentials cannot be read: their file system does not answer";
            stays(&Error::failed(what, "see to it"), Attempt::First);
        }
        self.certificate_failed = true;
        self.tokens.iter_mut().for_each(|tokens| tokens.failed = true);
        self.keys.iter_mut().for_each(|keys| keys.failed = true);
        self.authorities.iter_mut().for_each(|authorities| authorities.failed = true);
    }

    /// Reads the files again. Says whether it did: a file that somebody writes just now is not complete. When it is, that
    /// is a change.
    async fn renew<R: Runtime>(&mut self, runtime: &R, away: &Away, attempt: Attempt) -> bool {
        let Self { watch, tokens, keys, authorities, .. } = self;
        let (certificate, key) = self.certificate.clone();
        let tls = self.tls.clone();
        let tokens = tokens.as_ref().and_then(|tokens| tokens.question(watch, attempt));
        let keys = keys.as_ref().and_then(|keys| keys.question(watch, attempt));
        let authorities = authorities.as_ref().and_then(|authorities| authorities.question(watch, attempt));
        let replaced = (watch.watches(&certificate)
            && watch.watches(&key)
            && (self.certificate_failed || attempt == Attempt::First))
            .then_some(move || {
                files::regular(&certificate)?;
                files::regular(&key)?;
                tls::replace(&tls, &certificate, &key)
            });
        let at_rest = watch.at_rest();
        let given_up = self.spare.take();
        let work = move || {
            drop(given_up);
            if attempt == Attempt::Again && !at_rest() {
                return Err(spare());
            }
            Ok(Readings {
                tokens: tokens.map(|read| read()),
                keys: keys.map(|read| read()),
                authorities: authorities.map(|read| read()),
                certificate: replaced.map(|replace| replace()),
                spare: spare(),
            })
        };
        let done = within(runtime, PATIENCE, away.ask(work)).await;
        let readings = match done {
            Some(Ok(readings)) => readings,
            Some(Err(spare)) => {
                self.spare = spare;
                return false;
            }
            None => {
                self.no_answer();
                return false;
            }
        };
        let Readings { tokens, keys, authorities, certificate, spare } = readings;
        self.spare = spare;
        if let Some(source) = &mut self.tokens {
            source.renew(tokens, attempt);
        }
        if let Some(source) = &mut self.keys {
            source.renew(keys, attempt);
        }
        if let Some(source) = &mut self.authorities {
            source.renew(authorities, attempt);
        }
        if let Some(replaced) = certificate {
            self.certificate_failed = replaced.is_err_and(|error| stays(&error, attempt));
        }
        true
    }

    fn next_expiry(&self) -> Option<SystemTime> {
        let now = SystemTime::now();
        let tokens = self.tokens.as_ref().and_then(|tokens| tokens.held.next_expiry(now));
        let keys = self.keys.as_ref().and_then(|keys| keys.held.next_expiry(now));
        tokens.into_iter().chain(keys).min()
    }
}

/// Who is let in. Somebody has to decide that: there is no default.
fn methods(arguments: &ServerArgs) -> Result<Methods, Error> {
    let given = [
        Given { method: Method::Token, option: "--token-file", is: arguments.token_file.is_some() },
        Given {
            method: Method::Ed25519,
            option: "--authorized-keys",
            is: arguments.authorized_keys.is_some(),
        },
        Given { method: Method::TlsClientCert, option: "--client-ca", is: arguments.client_ca.is_some() },
    ];
    match &arguments.auth {
        Some(methods) => methods.clone().with(&given),
        None if given.iter().any(|given| given.is) => {
            Ok(Methods::together(given.iter().filter(|given| given.is).map(|given| given.method)))
        }
        None => Err(Error::usage(
            "who may connect is not said",
            "pass --authorized-keys FILE, --token-file FILE (`snocat token FILE` makes one) or --client-ca FILE, or \
             --auth none to let in everybody",
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn decided(options: &str) -> Result<String, Error> {
        let line = format!("snocat server --cert c --key k {options}");
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Server(server) = arguments.command else { panic!("not the server") };
        methods(&server).map(|methods| methods.to_string())
    }

    #[test]
    fn authentication_is_a_decision() {
        assert_eq!(decided("").unwrap_err().code(), 2);
        assert_eq!(decided("--auth none").unwrap(), "none");
        assert_eq!(decided("--token-file t").unwrap(), "token");
        assert_eq!(
            decided("--token-file t --client-ca c --authorized-keys a").unwrap(),
            "tls-client-cert+ed25519+token"
        );
        let together = "--token-file t --client-ca c --auth token+tls-client-cert,token";
        assert_eq!(decided(together).unwrap(), "tls-client-cert+token,token");
        assert_eq!(decided("--token-file t --auth token,none").unwrap(), "token,none");
    }

    #[test]
    fn methods_and_files_belong_together() {
        for (options, hint) in [
            ("--auth token", "--token-file"),
            ("--auth none --token-file t", "--token-file"),
            ("--auth token --token-file t --client-ca c", "--client-ca"),
        ] {
            let error = decided(options).unwrap_err();
            assert_eq!(error.code(), 2, "{options}");
            assert!(error.to_string().contains(hint), "{error}");
        }
    }
}
