//! `orchestrion dev` and `orchestrion server`: the flags of the engine. What they mean, and how they
//! rank with environment variables and the settings file, is the server's business.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use crate::server::{Mode, ServerError};

/// The engine's flags. A flag wins over an environment variable, which wins over the settings file.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// The folder of the data [default: ./.orchestrion]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where to listen for HTTP and WebSocket clients [default: 127.0.0.1:8005]
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub http_addr: Option<SocketAddr>,

    /// Where to listen for gRPC clients [default: 127.0.0.1:7233]
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub grpc_addr: Option<SocketAddr>,

    /// The engine's settings (TOML)
    // The same name as the client's `--config`, on purpose: each command has one configuration.
    #[arg(id = "config", long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The key that creating projects takes; for `server`, since `dev` is open [env: ORCHESTRION_ADMIN_KEY]
    // Read from the environment with all other settings, not here.
    #[arg(long, value_name = "KEY")]
    pub admin_key: Option<String>,

    /// Let anybody who can reach the engine create projects
    #[arg(long)]
    pub open: bool,
}

/// Runs the engine until it is told to stop.
pub async fn serve(mode: Mode, args: ServeArgs) -> Result<(), CliError> {
    // From the environment it may be meant for other commands; said here it is meant, and would not be heard.
    if mode == Mode::Dev && args.admin_key.is_some() {
        return Err(CliError::Usage(
            "`orchestrion dev` is open to whoever is on this machine and takes no --admin-key: use `orchestrion server`, which listens on this \
             machine alone as well until told otherwise"
                .into(),
        ));
    }
    crate::server::run(mode, args).await.map_err(|error| {
        let text = with_causes(&error);
        match error {
            ServerError::Config(_) | ServerError::NotLoopback { .. } | ServerError::NoAdminKey => {
                CliError::Usage(text)
            }
            _ => CliError::Failed(text),
        }
    })
}

/// Parses `host:port`, `address:port`, or `:port` on this machine alone.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let wrong =
        || format!("{text:?} is no address to listen at: write it like 127.0.0.1:8005 or :8005");
    if let Some(port) = text.strip_prefix(':') {
        let port: u16 = port.parse().map_err(|_| wrong())?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(|_| wrong())?.collect();
    let first_v4 = found.iter().find(|address| address.is_ipv4());
    first_v4.or(found.first()).copied().ok_or_else(wrong)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_at() {
        for (text, address) in [
            ("127.0.0.1:8005", "127.0.0.1:8005"),
            (":8005", "127.0.0.1:8005"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:1", "[::1]:1"),
            ("localhost:8005", "127.0.0.1:8005"),
        ] {
            assert_eq!(listen_address(text).unwrap().to_string(), address, "{text}");
        }
        for text in ["", "8005", "127.0.0.1", ":port", "127.0.0.1:99999"] {
            let error = listen_address(text).expect_err(text);
            assert!(error.contains("127.0.0.1:8005"), "{error}");
        }
    }
}
