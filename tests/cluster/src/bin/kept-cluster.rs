//! `kept-cluster FILE`: keeps a cluster up for a person until SIGTERM or Ctrl-C; see `tools/cluster`.
//!
//! Writes its process id to FILE, and on standard output what to type, then the line `ready`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use cluster::Cluster;
use std::env::args_os;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(file) = args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: kept-cluster FILE");
        return ExitCode::from(2);
    };
    match keep(file).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kept-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn keep(file: PathBuf) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    std::fs::write(file, std::process::id().to_string())?;
    // A signal during the start drops the cluster, which removes it.
    let cluster = tokio::select! {
        started = Cluster::try_start() => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    println!("A Kubernetes of one node runs until `make cluster-down`. Type:");
    println!();
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("  export PATH={}:$PATH", cluster.programs().display());
    println!("  kubectl get nodes");
    println!();
    println!(
        "Pods reach this machine at {}; logs of the components: {}",
        cluster.machine(),
        cluster.logs().display()
    );
    println!("ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cluster.stop();
    Ok(())
}
