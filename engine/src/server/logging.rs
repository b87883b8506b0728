//! Logs and metrics of the process.

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, LogSettings};
use crate::seams;

/// How often histograms are drained when nobody asks for the metrics.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Log lines go to standard error: text on a terminal, JSON elsewhere, unless the settings say otherwise.
pub(super) fn start(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        lines.json().flatten_event(true).finish().try_init()
    } else {
        lines.finish().try_init()
    };
    if let Err(error) = started {
        // A test or an embedding program has its own.
        tracing::debug!(%error, "logs go where they went before");
    }
}

/// The process's metrics, and how they are read.
pub(super) fn metrics() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics go where they went before");
    }
    let upkeep = handle.clone();
    seams::spawn(async move {
        loop {
            seams::sleep(UPKEEP_INTERVAL).await;
            upkeep.run_upkeep();
        }
    });
    handle
}
