//! Threads that compute in the background, and what they do so that others come first.

use std::cell::OnceCell;

use super::scratch;

thread_local! {
    /// What this thread calls between parts of its work; set for background threads only.
    static YIELD_HOOK: OnceCell<Box<dyn Fn()>> = const { OnceCell::new() };
}

/// Makes the calling thread a background thread, which shares no lock with serving threads. Threads of low priority call it when they start.
///
/// The kernels call `yield_hook` between parts of their work that take some 0.1 ms each, while they hold no lock. It may wait as long as it likes.
pub fn compute_in_background(yield_hook: impl Fn() + 'static) {
    scratch::use_background_buffers();
    // A thread that calls this twice keeps its first.
    let _ = YIELD_HOOK.with(|own| own.set(Box::new(yield_hook)));
}

/// Called by kernels before each part of their work.
pub(crate) fn yield_point() {
    YIELD_HOOK.with(|own| {
        if let Some(yield_hook) = own.get() {
            yield_hook();
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::kernels::{product, transposed_product};

    #[test]
    fn both_kinds_of_products_give_way_on_background_threads_only() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let background = ThreadPoolBuilder::new().start_handler(move |_| {
            let calls = counted.clone();
            compute_in_background(move || {
                calls.fetch_add(1, SeqCst);
            });
        });
        let background = background.build().unwrap();
        let serving = ThreadPoolBuilder::new().build().unwrap();
        let values = vec![1.0; 64 * 64];
        for kind in [product, transposed_product] {
            let expected = serving.install(|| kind(&values, &values, 64));
            assert_eq!(calls.swap(0, SeqCst), 0);
            assert_eq!(background.install(|| kind(&values, &values, 64)), expected);
            assert!(calls.swap(0, SeqCst) > 0);
        }
    }
}
