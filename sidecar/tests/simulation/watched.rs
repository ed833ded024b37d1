//! A value that tasks wait on. tokio's `watch` wakes those who wait in an order that it draws by itself, which no seed
//! reaches; this one wakes them in the order in which they came.

use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

pub struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Watched<T> {
    pub fn new(value: T) -> Arc<Self> {
        Arc::new(Self {
            value: Mutex::new(value),
            changed: Notify::new(),
        })
    }

    pub fn get(&self) -> T {
        self.value.lock().unwrap().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.lock().unwrap());
        self.changed.notify_waiters();
    }

    pub fn set(&self, value: T) {
        self.change(|current| *current = value);
    }

    /// Waits until the value is as wanted. Cancel safe.
    pub async fn until(&self, mut wanted: impl FnMut(&T) -> bool) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let value = self.get();
            if wanted(&value) {
                return value;
            }
            changed.await;
        }
    }
}
