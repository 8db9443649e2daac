//! An authentication method of an application's own: names and passwords, which a database knows.
//!
//! The password does not travel. What does is worth nothing on another connection, because it covers the binding.

use std::error::Error;
use std::sync::Arc;

use ring::hmac::{HMAC_SHA256, Key, sign, verify};
use snocat_smol::core::auth::{ConnectingConfig, Grant, ListeningConfig, Proven};
use snocat_smol::driver::rustls::pki_types::pem::PemObject;
use snocat_smol::driver::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use snocat_smol::{
    AuthenticationChannel, AuthenticationClient, AuthenticationHandler, ClientConfig, ClientTls, Denied,
    Destination, ServerConfig, ServerTls, Smol, Trust, TunnelServer, connect,
};

/// The name of the method: both sides register it under this one.
pub const METHOD: &str = "example.org/password";

/// The listening side: `ServerConfig::new(…).handle(METHOD, Passwords)`.
pub struct Passwords;

impl AuthenticationHandler for Passwords {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<Proven, Denied> {
        let said = channel.receive().await?;
        let (proof, user) = said.message.split_at_checked(32).ok_or(Denied::new("too short"))?;
        let user = std::str::from_utf8(user)?;
        let password = look_up(user).await;
        // Somebody unknown takes as long as a wrong password.
        let key = Key::new(HMAC_SHA256, password.unwrap_or("nobody's").as_bytes());
        match verify(&key, &said.binding, proof) {
            Ok(()) if password.is_some() => Ok(Proven::new(user, Grant::to(user))),
            _ => Err(Denied::new("wrong name or password")),
        }
    }
}

/// The connecting side: `ClientConfig::new(…).offer(METHOD, User { … })`.
pub struct User {
    /// Who it is.
    pub name: String,
    /// What only that one knows.
    pub password: String,
}

impl AuthenticationClient for User {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<(), Denied> {
        let key = Key::new(HMAC_SHA256, self.password.as_bytes());
        let proof = sign(&key, &channel.binding());
        Ok(channel.send([proof.as_ref(), self.name.as_bytes()].concat())?)
    }
}

/// Stands for a database.
async fn look_up(user: &str) -> Option<&'static str> {
    async_io::Timer::after(std::time::Duration::from_millis(1)).await;
    (user == "alice").then_some("correct horse battery staple")
}

/// Connects to a server of its own as `user`, and tells what the tunnel is called.
pub async fn run(
    runtime: Smol,
    server: ServerTls,
    client: ClientTls,
    user: User,
) -> Result<String, Box<dyn Error>> {
    let config = ServerConfig::new(server, ListeningConfig::default()).handle(METHOD, Passwords);
    let server = TunnelServer::bind(runtime.clone(), "127.0.0.1:0".parse()?, &config)?;
    let (host, server_name) = ("127.0.0.1".to_owned(), "localhost".to_owned());
    let to = Destination { host, port: server.local_addr().port(), server_name };
    let config = ClientConfig::new(client, ConnectingConfig::default()).offer(METHOD, user);
    Ok(connect(&runtime, &to, &config).await?.tunnel.name().to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let [cert, key, name, password] =
        arguments("usage: password CERT.pem KEY.pem NAME PASSWORD, the certificate being one for localhost")?;
    let certificate = CertificateDer::from_pem_file(cert)?;
    let server = ServerTls::new(vec![certificate.clone()], PrivateKeyDer::from_pem_file(key)?, None)?;
    let client = ClientTls::new(Trust::Authorities(vec![certificate]), None)?;
    let user = User { name, password };
    let executor = Arc::new(async_executor::Executor::new());
    let tunnel = run(Smol::new(executor.clone()), server, client, user);
    println!("the tunnel is called {}", async_io::block_on(executor.run(tunnel))?);
    Ok(())
}

fn arguments<const N: usize>(usage: &str) -> Result<[String; N], Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    arguments.try_into().map_err(|_| usage.into())
}
