//! Whom a server lets in: its files of credentials, as they are now. Read at the start, and again when they change.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_lite::future;
use rustls::pki_types::CertificateDer;
use snocat_driver::core::auth::{
    Authenticator, AuthorizedKey, AuthorizedKeys, CertificateJudge, Chain, ClientCertificates, Grant,
    ListeningConfig, NoProof, Proven, TokenKey, TokenKeys,
};
use snocat_driver::{ClientAuthorities, Runtime, ServerTls, TunnelServer};

use crate::args::ServerArgs;
use crate::away::Away;
use crate::error::Error;
use crate::keys::{KeyFile, authorized};
use crate::methods::{Given, Method, Methods};
use crate::output::Output;
use crate::server::within;
use crate::signal::Reread;
use crate::source::{Attempt, Reading, Source};
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
    /// The server's own certificate and key: what was read is in `tls`.
    certificate: Source<()>,
    /// A descriptor that is free whenever files are read: visitors may have used up all others, and must not be able to
    /// put a withdrawal off.
    spare: Option<File>,
    watch: Watch,
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

/// What reading the files again has come to.
struct Readings {
    tokens: Reading<KeyFile<TokenKey>>,
    keys: Reading<KeyFile<AuthorizedKey>>,
    authorities: Reading<Option<Arc<ClientAuthorities>>>,
    certificate: Reading<()>,
}

/// Accepts no certificate.
#[derive(Debug)]
struct Nobody;

impl CertificateJudge for Nobody {
    fn judge(&self, _: &[CertificateDer<'_>]) -> Result<Proven, String> {
        Err("the file of authorities cannot be read (--fail-closed)".to_owned())
    }
}

/// What a credential allows that does not count now: its names stay reserved, and nobody may come.
fn closed(grant: Grant) -> Grant {
    Grant { sources: Some(Vec::new()), ..grant }
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
        let grace = arguments.fail_closed.map(Duration::from_secs);
        let files =
            [token_file.as_ref(), authorized_keys.as_ref(), client_ca.as_ref(), Some(cert), Some(key)];
        // Before they are read, so that a change in between is noticed.
        let watch = Watch::new(files.into_iter().flatten().cloned());
        let tls = tls::server(cert, key)?;
        let accepted = Self {
            methods,
            tokens: source(token_file, grace, token::read)?,
            keys: source(authorized_keys, grace, authorized::read)?,
            authorities: source(client_ca, grace, tls::client_authorities)?,
            certificate: Source::new(vec![cert.clone(), key.clone()], (), {
                let (tls, cert, key) = (tls.clone(), cert.clone(), key.clone());
                move || tls::replace(&tls, &cert, &key)
            }),
            tls,
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
            tokens.held().some_valid(now, "token", token::ADVICE)?;
        }
        if let Some(keys) = &self.keys {
            keys.held().some_valid(now, "key", authorized::FORM)?;
        }
        match &self.authorities {
            Some(authorities) if authorities.held().is_none() => Err(Error::failed(
                format_args!("{} holds no certificate", authorities.path().display()),
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
        let tokens = self.tokens.as_ref().map(|tokens| {
            let mut valid = tokens.held().valid(now);
            if tokens.closed() {
                valid.iter_mut().for_each(|key| key.grant = closed(std::mem::take(&mut key.grant)));
            }
            Arc::new(TokenKeys::new(valid))
        });
        let keys = self.keys.as_ref().map(|keys| {
            let mut valid = keys.held().valid(now);
            if keys.closed() {
                valid.iter_mut().for_each(|key| key.grant = closed(std::mem::take(&mut key.grant)));
            }
            Arc::new(AuthorizedKeys::new(valid))
        });
        let judge = self.authorities.as_ref().and_then(|authorities| -> Option<Arc<dyn CertificateJudge>> {
            Some(if authorities.closed() { Arc::new(Nobody) } else { authorities.held().clone()? })
        });
        let one = |method: &Method| -> Option<Arc<dyn Authenticator>> {
            Some(match method {
                Method::Token => tokens.clone()?,
                Method::Ed25519 => keys.clone()?,
                Method::TlsClientCert => Arc::new(ClientCertificates::new(judge.clone()?)),
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
        output: &Output,
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
                Woken::Changed => self.renew(runtime, away, output, Attempt::First).await,
                Woken::Pause if self.failed() => self.renew(runtime, away, output, Attempt::Again).await,
                Woken::Pause => false,
                Woken::NoAnswer => {
                    self.no_answer(runtime.now());
                    false
                }
            };
            let closed = self.look_after(runtime.now(), output);
            if !renewed && !closed {
                server.review();
                continue;
            }
            server.set_authentication(self.config());
            if !self.failed() {
                let mut told = "read the files of certificates and credentials again".to_owned();
                for path in self.once_only() {
                    told.push_str(&format!(", but not {}, which can be read only once", path.display()));
                }
                output::note(told);
            }
        }
    }

    /// The files that are not read again.
    fn once_only(&self) -> impl Iterator<Item = &Path> {
        let Self { tokens, keys, authorities, certificate, watch, .. } = self;
        let tokens = tokens.iter().flat_map(|source| source.once_only(watch));
        let keys = keys.iter().flat_map(|source| source.once_only(watch));
        let authorities = authorities.iter().flat_map(|source| source.once_only(watch));
        tokens.chain(keys).chain(authorities).chain(certificate.once_only(watch))
    }

    /// Some files could not be read, and are to be tried again.
    fn failed(&self) -> bool {
        self.certificate.failed()
            || self.tokens.as_ref().is_some_and(Source::failed)
            || self.keys.as_ref().is_some_and(Source::failed)
            || self.authorities.as_ref().is_some_and(Source::failed)
    }

    /// No file can be read now.
    fn no_answer(&mut self, now: Instant) {
        let Self { tokens, keys, authorities, certificate, watch, .. } = self;
        certificate.no_answer(watch, now);
        tokens.iter_mut().for_each(|source| source.no_answer(watch, now));
        keys.iter_mut().for_each(|source| source.no_answer(watch, now));
        authorities.iter_mut().for_each(|source| source.no_answer(watch, now));
    }

    /// Tells of files that cannot be read. Says whether what one of them held has stopped counting.
    fn look_after(&mut self, now: Instant, output: &Output) -> bool {
        let Self { tokens, keys, authorities, certificate, .. } = self;
        certificate.look_after(now, output);
        let tokens = tokens.as_mut().is_some_and(|source| source.look_after(now, output));
        let keys = keys.as_mut().is_some_and(|source| source.look_after(now, output));
        let authorities = authorities.as_mut().is_some_and(|source| source.look_after(now, output));
        tokens || keys || authorities
    }

    /// Reads the files again. Says whether it did: a file that somebody writes just now is not complete. When it is, that
    /// is a change.
    async fn renew<R: Runtime>(
        &mut self,
        runtime: &R,
        away: &Away,
        output: &Output,
        attempt: Attempt,
    ) -> bool {
        let watch = &self.watch;
        let tokens = self.tokens.as_ref().map(|source| source.question(watch, attempt));
        let keys = self.keys.as_ref().map(|source| source.question(watch, attempt));
        let authorities = self.authorities.as_ref().map(|source| source.question(watch, attempt));
        let certificate = self.certificate.question(watch, attempt);
        let at_rest = watch.at_rest();
        let given_up = self.spare.take();
        let work = move || {
            drop(given_up);
            let readings = (attempt == Attempt::First || at_rest()).then(|| Readings {
                tokens: tokens.and_then(|read| read()),
                keys: keys.and_then(|read| read()),
                authorities: authorities.and_then(|read| read()),
                certificate: certificate(),
            });
            (readings, spare())
        };
        let done = within(runtime, PATIENCE, away.ask(work)).await;
        let now = runtime.now();
        let Some((readings, spare)) = done else {
            self.no_answer(now);
            return false;
        };
        self.spare = spare;
        let Some(Readings { tokens, keys, authorities, certificate }) = readings else { return false };
        if let Some(source) = &mut self.tokens {
            source.take_in(tokens, attempt, now, output);
        }
        if let Some(source) = &mut self.keys {
            source.take_in(keys, attempt, now, output);
        }
        if let Some(source) = &mut self.authorities {
            source.take_in(authorities, attempt, now, output);
        }
        self.certificate.take_in(certificate, attempt, now, output);
        true
    }

    fn next_expiry(&self) -> Option<SystemTime> {
        let now = SystemTime::now();
        let tokens = self.tokens.as_ref().and_then(|tokens| tokens.held().next_expiry(now));
        let keys = self.keys.as_ref().and_then(|keys| keys.held().next_expiry(now));
        tokens.into_iter().chain(keys).min()
    }
}

/// The source at this path, if there is one.
fn source<T: 'static>(
    path: &Option<PathBuf>,
    grace: Option<Duration>,
    read: fn(&Path) -> Result<T, Error>,
) -> Result<Option<Source<T>>, Error> {
    path.as_ref().map(|path| Source::file(path, grace, read)).transpose()
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
