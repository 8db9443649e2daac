//! The target of `snocat demo`: a web page about the tunnel that it came through. A few lines of HTTP/1.1, for
//! browsers and `curl`, on threads of its own.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// A request's head may not be longer, and a connection may not be idle for longer.
const MAX_HEAD: usize = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// Threads are cheap here, not free.
const STACK: usize = 128 << 10;

/// Serves the page on a free loopback port until the process ends; returns its address.
///
/// # Errors
/// The system gives no port or no thread.
pub fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("page".into()).spawn(move || {
        for visitor in listener.incoming() {
            // A browser opens connections that it does not use yet: one must not hold up the others.
            let handled = visitor.and_then(|visitor| {
                let answer = move || {
                    if let Err(error) = answer(visitor, address) {
                        tracing::debug!(%error, "a visitor of the page");
                    }
                };
                thread::Builder::new().name("page visitor".into()).stack_size(STACK).spawn(answer)
            });
            if let Err(error) = handled {
                tracing::debug!(%error, "cannot take a visitor of the page");
                thread::sleep(Duration::from_millis(100));
            }
        }
    })?;
    Ok(address)
}

fn answer(mut visitor: TcpStream, served_by: SocketAddr) -> io::Result<()> {
    visitor.set_read_timeout(Some(PATIENCE))?;
    visitor.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = visitor.read(&mut buffer)?;
        if read == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    visitor.write_all(&response(&String::from_utf8_lossy(&head), served_by))?;
    visitor.shutdown(std::net::Shutdown::Write)?;
    // Closing with unread bytes would reset the connection, and could take the answer with it.
    while visitor.read(&mut buffer)? > 0 {}
    Ok(())
}

/// The answer to a request's head: the page, as HTML to whoever asks for that.
fn response(head: &str, served_by: SocketAddr) -> Vec<u8> {
    let mut request = head.lines().next().unwrap_or_default().split(' ');
    let (method, path) = (request.next().unwrap_or_default(), request.next().unwrap_or_default());
    let html = head.lines().any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("accept") && value.to_ascii_lowercase().contains("text/html")
        })
    });
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/") => ("200 OK", page(html, served_by)),
        ("GET" | "HEAD", _) => ("404 Not Found", "There is only one page here: /\n".to_owned()),
        _ => ("405 Method Not Allowed", "This page can only be read.\n".to_owned()),
    };
    let kind = if html && path == "/" { "text/html" } else { "text/plain" };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if method != "HEAD" {
        response.push_str(&body);
    }
    response.into_bytes()
}

fn page(html: bool, served_by: SocketAddr) -> String {
    if !html {
        return format!(
            "It works: this page came through a snocat tunnel.\n\
             you -> server -> QUIC tunnel -> client -> {served_by}\n"
        );
    }
    format!(
        r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>snocat works</title>
<style>
body {{ font: 18px/1.6 system-ui, sans-serif; max-width: 38em; margin: 12vh auto; padding: 0 1em;
  color: light-dark(#222, #ddd); background: light-dark(#fff, #181818); color-scheme: light dark }}
ol {{ padding-left: 1.2em }} code {{ font-size: .95em }}
</style>
<h1>It works.</h1>
<p>This page came through a tunnel:</p>
<ol>
<li>your browser opened a TCP connection to the server's port,</li>
<li>the server opened a stream in a QUIC connection, encrypted and authenticated both ways,</li>
<li>the client at its other end connected that stream to <code>{served_by}</code>, where this page is.</li>
</ol>
<p>To do the same with two machines and a service of your own: <code>snocat --help</code>.</p>
</html>
"#
    )
}

/// Fetches `http://ADDRESS/` and returns its text.
///
/// # Errors
/// The connection breaks or takes too long, or the answer is not the page.
pub fn fetch(address: SocketAddr) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection
        .write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    connection.take(1 << 20).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not the page")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_html_and_programs_get_text() {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let respond = |head: &str| String::from_utf8(response(head, at)).unwrap();
        let text = respond("GET / HTTP/1.1\r\nAccept: */*\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain"), "{text}");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
        let html = respond("GET / HTTP/1.1\r\naccept: text/html,*/*\r\n\r\n");
        assert!(html.contains("Content-Type: text/html") && html.ends_with("</html>\n"), "{html}");
        assert!(respond("HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(respond("GET /favicon.ico HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(respond("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(respond("").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn served_and_fetched() {
        let address = serve().unwrap();
        let idle = TcpStream::connect(address).unwrap();
        assert!(fetch(address).unwrap().contains(&address.to_string()));
        drop(idle);
        assert!(fetch(address).unwrap().starts_with("It works"));
    }
}
