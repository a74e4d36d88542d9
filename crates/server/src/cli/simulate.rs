//! `wasel simulate`: stand-ins for Meta and Twilio, alone.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use wasel_simulator::Simulator;

use super::{print, serve};

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen. Loopback: it lets anybody pose as a provider.
    #[arg(long, default_value = "127.0.0.1:3002")]
    listen: SocketAddr,
}

pub async fn run(args: Args) -> Result<()> {
    let simulator = Simulator::start(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    print(&format!("META_GRAPH_BASE={}", simulator.meta_base()));
    print(&format!("TWILIO_API_BASE={}", simulator.twilio_base()));
    #[cfg(feature = "simulated-phones")]
    print(&format!(
        "WHATSAPP_WEB_URL={}",
        simulator.whatsapp_web_url()
    ));
    print(&format!("Control: {}/sim", simulator.base_url()));
    serve::wait_for_signal().await?;
    simulator.stop().await;
    Ok(())
}
