//! A minute of use from Rust. The README shows this file, and `tests/readme.rs` runs it against a daemon.

// README begins
use commonhold::blocking::{Batch, Client, Error};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tea {
    name: String,
    minutes: u32,
}

pub(crate) fn main() -> Result<(), Error> {
    let client = Client::connect("rag_storage")?; // the directory is the address; Client is Clone, Send and Sync
    let teas = client.namespace("teas")?;

    let oolong = Tea { name: "烏龍茶".into(), minutes: 3 };
    let written = teas.put("oolong", &oolong)?;
    assert_eq!(teas.get::<Tea>("oolong")?, Some(oolong));
    println!("write number {} of this store", written.seq);

    // Several keys in one request: all of it takes effect, or none.
    let sencha = Tea { name: "煎茶".into(), minutes: 2 };
    client.write(&Batch::new().put(&teas, "sencha", &sencha)?.delete(&teas, "oolong")?)?;

    client.commit()?; // what was acknowledged is on the platter
    teas.flush()?; // and rag_storage/kv_store_teas.json holds it
    Ok(())
}
