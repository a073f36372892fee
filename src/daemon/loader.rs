//! Loads: a namespace that is asked for and not in memory is loaded by a helper, once, whoever waits for it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::Store;
use crate::proto::Place;

use super::helpers::Helpers;

/// Called when the namespace is open, or known not to open, on a helper's thread: it must not wait.
type Then = Box<dyn FnOnce() + Send>;

/// Who waits for which namespace.
pub(super) struct Loader {
    store: Arc<Store>,
    helpers: Arc<Helpers>,
    waiting: Mutex<HashMap<Place, Vec<Then>>>,
}

impl Loader {
    pub(super) fn new(store: Arc<Store>, helpers: Arc<Helpers>) -> Arc<Self> {
        Arc::new(Self { store, helpers, waiting: Mutex::default() })
    }

    /// Loads the namespace and calls `then`; never on this thread. What became of it, the store tells from then on.
    pub(super) fn load(self: &Arc<Self>, place: &Place, then: Then) {
        let mut waiting = self.waiting.lock();
        if let Some(others) = waiting.get_mut(place) {
            return others.push(then);
        }
        waiting.insert(place.clone(), vec![then]);
        drop(waiting);
        let (loader, place) = (Arc::clone(self), place.clone());
        self.helpers.run(move || {
            // A failure is found again, and told, by those who waited: they ask the store.
            let outcome = loader.store.namespace(&place);
            let waited = loader.waiting.lock().remove(&place);
            waited.into_iter().flatten().for_each(|then| then());
            // Held until now, so that nothing takes it for unused before those who waited have seen it.
            drop(outcome);
        });
    }

    /// Nobody waits any more: the daemon ends.
    pub(super) fn close(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        drop(waiting);
    }
}
