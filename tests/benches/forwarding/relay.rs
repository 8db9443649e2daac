//! The plain relay: takes TCP connections, and copies each to and from another address. Two of them in a row do what a
//! tunnel does, without any protocol.

use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use crate::Result;
use crate::role::{Arguments, say};

/// The name of the role. Its arguments: the IP address to listen on, where connections go.
pub const ROLE: &str = "relay";

/// The role, until the benchmark ends it.
pub fn run(arguments: &Arguments<'_>) -> Result<()> {
    snocat_tests::enough_descriptors(16_384);
    let (here, to) = (arguments.get::<IpAddr>(0)?, arguments.get::<SocketAddr>(1)?);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((here, 0)).await?;
        say(format_args!("listening {}", listener.local_addr()?))?;
        // Not here: the thread that blocks on the runtime is not one of its workers.
        tokio::spawn(async move {
            loop {
                let (mut visitor, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let mut next = TcpStream::connect(to).await?;
                    visitor.set_nodelay(true)?;
                    next.set_nodelay(true)?;
                    tokio::io::copy_bidirectional(&mut visitor, &mut next).await
                });
            }
        })
        .await?
    })
}
