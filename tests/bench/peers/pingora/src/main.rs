//! A reverse proxy as Pingora's quick start writes one, to a single origin. No access log.
//!
//! `bench-pingora LISTEN UPSTREAM`, each `<address>:<port>`.

use async_trait::async_trait;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use std::error::Error;
use std::net::SocketAddr;

/// Where every request goes.
struct Origin(SocketAddr);

#[async_trait]
impl ProxyHttp for Origin {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _context: &mut Self::CTX,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// Defaults, but for what follows. Connections are kept on both sides by default, without a bound on their requests.
fn configuration() -> ServerConf {
    ServerConf {
        // One worker, as every proxy here has one thread: with no other there is nothing to steal.
        threads: 1,
        work_stealing: false,
        // More than there are connections of callers.
        upstream_keepalive_pool_size: 1024,
        // It ends when it is told to: minutes of grace are none of what is measured.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || -> Result<SocketAddr, Box<dyn Error>> {
        let argument = arguments.next().ok_or("usage: bench-pingora LISTEN UPSTREAM")?;
        Ok(argument.parse()?)
    };
    let (listen, origin) = (address()?, address()?);

    let mut server = Server::new_with_opt_and_conf(None, configuration());
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Origin(origin));
    proxy.add_tcp(&listen.to_string());
    server.add_service(proxy);
    server.run_forever()
}
