//! Raw quinn: one stream between two processes, and no TCP. What QUIC costs on this machine.
//!
//! quinn's defaults throughout, `write_all` and `read`. Only a keep-alive is added: the connection waits while the
//! other systems are measured. The server takes the visitors' part: "down" is towards it, as in a tunnel.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::Result;
use crate::load::{DOWN, PING_PONG, STEADY_DOWN, STEADY_UP, UP, say_percentiles};
use crate::role::{Arguments, hear, say};
use crate::steady;
use crate::target::{CHUNK, MESSAGE, Request};

/// The name of the role. Its arguments: the IP address to listen on, where to put the certificate.
pub const SERVER: &str = "quinn-server";
/// The name of the role. Its arguments: the server's address, where its certificate is.
pub const CLIENT: &str = "quinn-client";

const NAME: &str = "quinn.test";

/// The role of the server: does what the benchmark says ("down MILLISECONDS", "steady-up WINDOW", …) until its end.
pub fn server(arguments: &Arguments<'_>) -> Result<()> {
    let (address, path) = (arguments.get::<IpAddr>(0)?, arguments.get::<PathBuf>(1)?);
    let identity = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    std::fs::write(path, identity.cert.der())?;
    let config = ServerConfig::with_single_cert(vec![identity.cert.der().clone()], key.into())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let endpoint = Endpoint::server(config, SocketAddr::new(address, 0))?;
        say(format_args!("listening {}", endpoint.local_addr()?))?;
        let connection = endpoint.accept().await.ok_or("the endpoint is closed")?.await?;
        while let Some(line) = tokio::task::spawn_blocking(hear).await?? {
            let (work, time) = line.split_once(' ').ok_or("no time")?;
            let (send, receive) = connection.open_bi().await?;
            // In a task, as the other end: the thread that blocks on the runtime is not one of its workers.
            tokio::spawn(visit(work.to_owned(), time.to_owned(), send, receive)).await??;
        }
        Ok(())
    })
}

async fn visit(work: String, time: String, mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    if work == STEADY_DOWN.0 || work == STEADY_UP.0 {
        let bytes = steady::visit(work == STEADY_UP.0, time.parse()?, send, receive).await?;
        // It has nobody to share with.
        return say(format_args!("{bytes} 1"));
    }
    let time = Duration::from_millis(time.parse()?);
    let begin = Instant::now();
    let bytes = if work == DOWN.0 {
        send.write_all(&Request::Send(time).encode()).await?;
        read_to_end(&mut receive).await?
    } else if work == UP.0 {
        send.write_all(&Request::Take.encode()).await?;
        let sent = write_for(&mut send, time).await?;
        let mut arrived = [0; 8];
        receive.read_exact(&mut arrived).await?;
        let arrived = u64::from_be_bytes(arrived);
        if arrived != sent {
            return Err(format!("{sent} bytes sent, {arrived} have arrived").into());
        }
        sent
    } else if work == PING_PONG.0 {
        return ping_pong(time, &mut send, &mut receive).await;
    } else {
        return Err(format!("raw quinn cannot `{work}`").into());
    };
    say(format_args!("{bytes} {}", begin.elapsed().as_secs_f64()))
}

async fn ping_pong(time: Duration, send: &mut SendStream, receive: &mut RecvStream) -> Result<()> {
    for _ in 0..200 {
        echo(send, receive).await?;
    }
    let (end, mut took) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        let begin = Instant::now();
        echo(send, receive).await?;
        took.push(begin.elapsed());
    }
    send.finish()?;
    say_percentiles(&took)
}

async fn echo(send: &mut SendStream, receive: &mut RecvStream) -> Result<()> {
    let sent = Request::Echo.encode();
    send.write_all(&sent).await?;
    let mut back = [0; MESSAGE];
    receive.read_exact(&mut back).await?;
    if back == sent { Ok(()) } else { Err("another message has come back".into()) }
}

/// The role of the client, which is also the target, until the benchmark ends it.
pub fn client(arguments: &Arguments<'_>) -> Result<()> {
    let (server, path) = (arguments.get::<SocketAddr>(0)?, arguments.get::<PathBuf>(1)?);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(path)?))?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    config.transport_config(Arc::new(transport));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let endpoint = Endpoint::client(SocketAddr::new([0, 0, 0, 0].into(), 0))?;
        let connection = endpoint.connect_with(config, server, NAME)?.await?;
        say("connected")?;
        serve(connection).await
    })
}

async fn serve(connection: Connection) -> Result<()> {
    loop {
        let (send, receive) = connection.accept_bi().await?;
        tokio::spawn(async move {
            if let Err(error) = answer(send, receive).await {
                eprintln!("a stream has failed: {error}");
            }
        });
    }
}

async fn answer(mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    let mut message = [0; MESSAGE];
    receive.read_exact(&mut message).await?;
    match Request::decode(&message)? {
        Request::Echo => {
            send.write_all(&message).await?;
            while let Some(count) = receive.read(&mut message).await? {
                send.write_all(&message[..count]).await?;
            }
            send.finish()?;
        }
        Request::Send(time) => {
            write_for(&mut send, time).await?;
        }
        Request::Take => {
            let bytes = read_to_end(&mut receive).await?;
            send.write_all(&bytes.to_be_bytes()).await?;
            send.finish()?;
        }
        Request::Give => steady::give(send).await?,
        Request::Measure(window) => {
            let bytes = steady::take(&mut receive, window).await?;
            send.write_all(&bytes.to_be_bytes()).await?;
            send.finish()?;
            // Until the visitor leaves: a stream that is dropped would stop it before it has the number.
            read_to_end(&mut receive).await?;
        }
    }
    Ok(())
}

async fn write_for(send: &mut SendStream, time: Duration) -> Result<u64> {
    let begin = Instant::now();
    let chunk = vec![0x5a; CHUNK];
    let mut sum = 0;
    while begin.elapsed() < time {
        send.write_all(&chunk).await?;
        sum += CHUNK as u64;
    }
    send.finish()?;
    Ok(sum)
}

async fn read_to_end(receive: &mut RecvStream) -> Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut sum = 0;
    while let Some(count) = receive.read(&mut chunk).await? {
        sum += count as u64;
    }
    Ok(sum)
}
