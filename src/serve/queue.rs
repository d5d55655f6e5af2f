//! A queue that is fair among requests: small requests go first, and several requests take turns, one image each.

use std::collections::VecDeque;

/// Images of small requests taken in a row while those of large ones wait; then one of these has its turn.
const SMALL_IN_A_ROW: usize = 3;

/// The request that an image is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Unique among the requests that wait.
    pub(super) request: u64,
    /// Whether it has so few images that it goes before the rest of large ones.
    pub(super) small: bool,
}

/// A queue of `T`; first come, first served within a request.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    small: Rotation<T>,
    large: Rotation<T>,
    small_in_a_row: usize,
}

/// Requests in turn.
#[derive(Debug)]
struct Rotation<T>(VecDeque<Request<T>>);

#[derive(Debug)]
struct Request<T> {
    id: u64,
    /// Never empty.
    waiting: VecDeque<T>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            small: Rotation(VecDeque::new()),
            large: Rotation(VecDeque::new()),
            small_in_a_row: 0,
        }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn push(&mut self, origin: Origin, item: T) {
        let rotation = if origin.small {
            &mut self.small
        } else {
            &mut self.large
        };
        rotation.push(origin.request, item);
    }

    /// The next in turn that `accepts` does not refuse; it is asked of the first of each request.
    pub(super) fn pop(&mut self, accepts: impl Fn(&T) -> bool) -> Option<T> {
        let large = self
            .is_large_due()
            .then(|| self.large.pop(&accepts))
            .flatten();
        if large.is_none()
            && let Some(item) = self.small.pop(&accepts)
        {
            self.small_in_a_row += 1;
            return Some(item);
        }
        self.small_in_a_row = 0;
        large.or_else(|| self.large.pop(&accepts))
    }

    /// [`Self::pop`] of small requests only; none while a large one has its turn.
    pub(super) fn pop_small(&mut self, accepts: impl Fn(&T) -> bool) -> Option<T> {
        if self.is_large_due() && !self.large.0.is_empty() {
            return None;
        }
        let item = self.small.pop(&accepts)?;
        self.small_in_a_row += 1;
        Some(item)
    }

    fn is_large_due(&self) -> bool {
        self.small_in_a_row >= SMALL_IN_A_ROW
    }

    /// Drops what `keep` refuses.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.small.retain(&keep);
        self.large.retain(&keep);
    }

    /// Whether an image of a small request waits.
    pub(super) fn has_small(&self) -> bool {
        !self.small.0.is_empty()
    }
}

impl<T> Rotation<T> {
    /// A new request goes behind those that wait.
    fn push(&mut self, id: u64, item: T) {
        match self.0.iter_mut().find(|request| request.id == id) {
            Some(request) => request.waiting.push_back(item),
            None => self.0.push_back(Request {
                id,
                waiting: VecDeque::from([item]),
            }),
        }
    }

    fn pop(&mut self, accepts: impl Fn(&T) -> bool) -> Option<T> {
        let chosen = |request: &Request<T>| request.waiting.front().is_some_and(&accepts);
        let place = self.0.iter().position(chosen)?;
        let mut request = self.0.remove(place)?;
        let item = request.waiting.pop_front();
        if !request.waiting.is_empty() {
            self.0.push_back(request);
        }
        item
    }

    fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for request in &mut self.0 {
            request.waiting.retain(&keep);
        }
        self.0.retain(|request| !request.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests by name; those in capitals are large.
    fn queue(images: &str) -> FairQueue<char> {
        let mut queue = FairQueue::default();
        images.chars().for_each(|name| push(&mut queue, name));
        queue
    }

    fn push(queue: &mut FairQueue<char>, name: char) {
        let origin = Origin {
            request: u64::from(name),
            small: name.is_lowercase(),
        };
        queue.push(origin, name);
    }

    fn drain(queue: &mut FairQueue<char>) -> String {
        std::iter::from_fn(|| queue.pop(|_| true)).collect()
    }

    #[test]
    fn large_requests_give_one_image_in_turn() {
        assert_eq!(drain(&mut queue("AAAABBC")), "ABCABAA");
    }

    #[test]
    fn a_small_request_goes_before_the_rest_of_a_large_one() {
        let mut queue = queue("AAAA");
        assert_eq!(queue.pop(|_| true), Some('A'));
        push(&mut queue, 'x');
        assert_eq!(drain(&mut queue), "xAAA");
    }

    #[test]
    fn however_many_small_requests_come_a_large_one_has_every_fourth_place() {
        assert_eq!(
            drain(&mut queue("Aabcdefgh".repeat(2).as_str())),
            "abcAdefAghabcdefgh"
        );
    }

    #[test]
    fn small_requests_alone_join_until_a_large_one_has_its_turn() {
        let mut queue = queue("Aabcdefgh");
        let small = |queue: &mut FairQueue<char>| -> String {
            std::iter::from_fn(|| queue.pop_small(|_| true)).collect()
        };
        assert_eq!(small(&mut queue), "abc");
        assert_eq!(queue.pop(|_| true), Some('A'));
        assert_eq!(small(&mut queue), "defgh", "no large one is left");
    }

    #[test]
    fn what_is_refused_keeps_its_place() {
        let mut queue = queue("aABAB");
        assert_eq!(queue.pop(|name| *name == 'B'), Some('B'));
        assert_eq!(drain(&mut queue), "aABA");
    }

    #[test]
    fn a_request_whose_images_are_dropped_is_gone() {
        let mut queue = queue("aABA");
        queue.retain(|name| *name != 'A' && *name != 'a');
        assert!(!queue.has_small());
        assert_eq!(drain(&mut queue), "B");
    }
}
