//! `wasel migrate`.

use anyhow::Result;
use wasel_config::Config;

use super::print;
use crate::app::Database;

#[derive(clap::Args)]
pub struct Args {
    /// Print the SQL instead of applying it.
    #[arg(long)]
    print: bool,
}

pub async fn run(config: Config, args: Args) -> Result<()> {
    if args.print {
        print(&wasel_db::migration_sql());
        return Ok(());
    }
    let database = Database::open_shared(&config).await?;
    let result = wasel_db::migrate(&database.options).await;
    database.close().await?;
    result?;
    print("The schema is up to date.");
    Ok(())
}
