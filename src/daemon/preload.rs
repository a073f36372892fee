//! What `--preload` asks for: loading namespaces at the start, beside serving. Whether that still goes on is told by
//! `status`, for those who wait until it is done.

use std::sync::atomic::Ordering;

use crate::proto::Place;

use super::Daemon;
use super::fault::with_causes;
use super::options::Preload;

impl Daemon {
    /// Loads what the options name, and says in the log what became of each. It ends early when the daemon stops.
    pub(super) fn preload(&self) {
        let places = match &self.options().preload {
            Preload::None => Vec::new(),
            Preload::These(places) => places.clone(),
            Preload::All => self.all_places(),
        };
        for place in places {
            if !self.takes_writes() {
                break;
            }
            match self.store().namespace(&place) {
                Ok(table) => tracing::info!(%place, records = table.len(), "loaded"),
                Err(error) => tracing::error!(%place, "not loaded: {}", with_causes(&error)),
            }
        }
        self.preloading.store(false, Ordering::Release);
    }

    /// Whether namespaces that were to be loaded at the start are not loaded yet.
    pub(super) fn is_preloading(&self) -> bool {
        self.preloading.load(Ordering::Acquire)
    }

    fn all_places(&self) -> Vec<Place> {
        match self.store().namespaces() {
            Ok(known) => known.iter().filter_map(|info| Place::new(&info.workspace, &info.namespace).ok()).collect(),
            Err(error) => {
                tracing::error!("namespaces could not be listed: {}", with_causes(&error));
                Vec::new()
            }
        }
    }
}
