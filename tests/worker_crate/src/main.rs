//! Counts its own runs in a store: enough of the client that everything of it is linked.

use commonhold::blocking::{Client, Error};

fn main() -> Result<(), Error> {
    let client = Client::connect(std::env::args().nth(1).unwrap_or_else(|| "rag_storage".to_owned()))?;
    let runs = client.namespace("runs")?;
    runs.increment("worker", "count", 1)?;
    println!("{}", runs.get_raw("worker")?.expect("it was just written").text());
    #[cfg(feature = "async")]
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
        let client = commonhold::Client::connect(".").await?;
        client.ping().await
    })?;
    Ok(())
}
