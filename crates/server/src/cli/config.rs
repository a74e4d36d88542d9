//! `wasel config`.

use anyhow::Result;
use wasel_config::Config;

use super::print;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Read the configuration as the server would and say what is unwise in it.
    Check,
    /// Print every setting in force and where it came from, without secrets.
    Dump,
}

pub fn run(config: Config, command: Command) -> Result<()> {
    match command {
        Command::Check => {
            for warning in config.warnings() {
                print(&format!("warning: {warning}"));
            }
            print("The configuration is valid.");
        }
        Command::Dump => print(&config.to_toml()),
    }
    Ok(())
}
