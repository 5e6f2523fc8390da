//! placeholder
use clap::Args;
/// placeholder
#[derive(Args, Clone, Debug)]
pub struct Options {}
/// placeholder
pub fn run(_: &Options) -> anyhow::Result<()> { Ok(()) }
