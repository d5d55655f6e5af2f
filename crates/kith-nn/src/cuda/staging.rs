//! Pinned pages of the host's memory, through which values are uploaded.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DriverError, PinnedHostSlice, result,
};
use candle_core::{Result, bail};

use super::arrays::{Span, UploadType};

/// KiB of a page. Pages of 512 to 2,048 KiB were equally fast; of 256, a fifth slower at 64 images of 96 px.
const PAGE_KIB: usize = 1024;
/// While some are copied, the others are filled.
const PAGES: usize = 6;
/// Values that a thread copies at once. All threads together fill one page, so that it is full soon.
const PIECE: usize = 1 << 13;
/// Values that are worth another thread.
const VALUES_A_THREAD: usize = 1 << 15;
/// Pages whose copies may be pending while the others are filled: the bus is never without one.
const PENDING: usize = 2;

/// Pages that are filled and copied in turn.
pub(super) struct PinnedStaging {
    pages: Vec<Page>,
    /// The page after the last one that was used.
    next: usize,
}

struct Page {
    memory: PinnedHostSlice<f32>,
    /// The end of the last copy from this page.
    copied: Option<CudaEvent>,
}

impl Page {
    /// Waits for the last copy from this page.
    fn wait(&mut self) -> Result<()> {
        match self.copied.take() {
            Some(copied) => copied.synchronize().w(),
            None => Ok(()),
        }
    }
}

impl PinnedStaging {
    pub(super) fn new(stream: &CudaStream) -> std::result::Result<Self, DriverError> {
        let page = |_| {
            // Cached memory: write-combined memory is neither filled nor copied faster.
            // SAFETY: only read where it has been written before.
            let memory = unsafe { stream.context().alloc_pinned_with_flags(PAGE_KIB << 8, 0) }?;
            Ok(Page {
                memory,
                copied: None,
            })
        };
        let pages = (0..PAGES).map(page);
        Ok(Self {
            pages: pages.collect::<std::result::Result<_, _>>()?,
            next: 0,
        })
    }

    /// Copies the concatenation of `parts` to `target` in its type. The rest of `target` becomes zero. Returns before the copy ends.
    pub(super) fn upload<T: UploadType>(
        &mut self,
        stream: &Arc<CudaStream>,
        parts: &[&[f32]],
        target: Span<'_, T>,
    ) -> Result<()> {
        let values: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(values <= target.len);
        let fill = self.plan::<T>(parts)?;
        let threads = rayon::current_num_threads().min(values.div_ceil(VALUES_A_THREAD));
        // One thread copies more slowly than the bus.
        rayon::in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| while fill.copy_piece(true) {});
            }
            let copied = self.copy_pages(stream, &fill, target);
            if copied.is_err() {
                fill.stopped.store(true, Ordering::Release);
            }
            copied
        })?;
        if values < target.len {
            let (at, bytes) = (
                target.at + (values * size_of::<T>()) as u64,
                (target.len - values) * size_of::<T>(),
            );
            stream.context().bind_to_thread().w()?;
            // SAFETY: it is the rest of the target; zero bytes are zeros of each type.
            unsafe { result::memset_d8_async(at, 0, bytes, stream.cu_stream()) }.w()?;
        }
        Ok(())
    }

    /// Which piece of `parts` goes to which page.
    fn plan<'a, T: UploadType>(&mut self, parts: &[&'a [f32]]) -> Result<Fill<'a, T>> {
        let starts = self.pages.iter_mut().map(|page| page.memory.as_mut_ptr());
        let starts = starts.collect::<std::result::Result<Vec<_>, _>>().w()?;
        let capacity = self.pages[0].memory.len() * size_of::<f32>() / size_of::<T>();
        let mut fill = Fill {
            pieces: Vec::new(),
            pages: Vec::new(),
            next: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            values: PhantomData,
        };
        for from in parts.iter().flat_map(|part| part.chunks(PIECE)) {
            let full = fill
                .pages
                .last()
                .is_none_or(|page| page.values + from.len() > capacity);
            if full {
                fill.pages.push(PageFill::default());
            }
            let number = fill.pages.len() - 1;
            let slot = (self.next + number) % self.pages.len();
            let Some(page) = fill.pages.last_mut() else {
                bail!("no page")
            };
            fill.pieces.push(Piece {
                from,
                page: number,
                // SAFETY: the page has room for as many values.
                to: unsafe { starts[slot].cast::<T>().add(page.values) },
            });
            (page.values, page.pieces) = (page.values + from.len(), page.pieces + 1);
        }
        Ok(fill)
    }

    /// Copies each page to `target` once it is full. This thread fills pages too.
    fn copy_pages<T: UploadType>(
        &mut self,
        stream: &Arc<CudaStream>,
        fill: &Fill<'_, T>,
        target: Span<'_, T>,
    ) -> Result<()> {
        let (count, first) = (self.pages.len(), self.next);
        let (mut opened, mut done) = (0, 0);
        for (number, page) in fill.pages.iter().enumerate() {
            let until = (number + count - PENDING).min(fill.pages.len());
            while opened < until {
                self.pages[(first + opened) % count].wait()?;
                opened += 1;
                fill.open.store(opened, Ordering::Release);
            }
            while page.filled.load(Ordering::Acquire) < page.pieces {
                if !fill.copy_piece(false) {
                    std::thread::yield_now();
                }
            }
            let Page { memory, copied } = &mut self.pages[(first + number) % count];
            // SAFETY: so many values have been written, and any bits are a `T`.
            let values = unsafe {
                let start = memory.as_mut_ptr().w()?.cast::<T>();
                std::slice::from_raw_parts(start, page.values)
            };
            let to = target.at + (done * size_of::<T>()) as u64;
            stream.context().bind_to_thread().w()?;
            // SAFETY: the target holds as many values, and the page is not written before `copied` has passed.
            unsafe { result::memcpy_htod_async(to, values, stream.cu_stream()) }.w()?;
            *copied = Some(stream.record_event(None).w()?);
            done += page.values;
            self.next = (first + number + 1) % count;
        }
        Ok(())
    }
}

/// The values of an upload with the pages that they go to, for the threads that copy them.
struct Fill<'a, T> {
    /// In the order of their pages.
    pieces: Vec<Piece<'a, T>>,
    pages: Vec<PageFill>,
    /// The first piece that no thread has taken.
    next: AtomicUsize,
    /// Pages before this one may be written.
    open: AtomicUsize,
    stopped: AtomicBool,
    values: PhantomData<T>,
}

/// Values that one thread copies.
struct Piece<'a, T> {
    from: &'a [f32],
    page: usize,
    to: *mut T,
}

#[derive(Default)]
struct PageFill {
    values: usize,
    pieces: usize,
    /// Pieces that have been copied.
    filled: AtomicUsize,
}

// SAFETY: each piece is taken by one thread, and no two overlap.
unsafe impl<T: Send> Sync for Fill<'_, T> {}

impl<T: UploadType> Fill<'_, T> {
    /// Copies the next piece, if its page may be written; if it may not yet, waits for that if `wait`. `false`: there is none to wait for.
    fn copy_piece(&self, wait: bool) -> bool {
        loop {
            let number = self.next.load(Ordering::Relaxed);
            let Some(piece) = self.pieces.get(number) else {
                return false;
            };
            if piece.page >= self.open.load(Ordering::Acquire) {
                if !wait || self.stopped.load(Ordering::Acquire) {
                    return false;
                }
                std::thread::yield_now();
                continue;
            }
            let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            if self
                .next
                .compare_exchange_weak(number, number + 1, order, failed)
                .is_err()
            {
                continue;
            }
            // SAFETY: the piece is this thread's alone, and nothing else uses its place in the page, which is open and not yet copied.
            let to = unsafe { std::slice::from_raw_parts_mut(piece.to, piece.from.len()) };
            T::copy(piece.from, to);
            self.pages[piece.page]
                .filled
                .fetch_add(1, Ordering::Release);
            return true;
        }
    }
}
