//! Counts the bytes of a body against what its caller's key may use, as they arrive. A body whose key is used up, revoked or expired on the
//! way fails, a stream too.

use std::{
    pin::Pin,
    task::{Context as Task, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use hyper::body::{Frame, SizeHint};

use super::{body_error::BodyError, error::ApiError};
use crate::keys::Caller;

/// Counts the decompressed body of a request with a key.
pub(super) async fn meter_body(request: Request, next: Next) -> Response {
    let caller: Option<Caller> = request.extensions().get().cloned();
    let request = match caller {
        Some(caller) if !request.body().is_end_stream() => request.map(|body| {
            Body::new(MeteredBody {
                body,
                caller,
                bytes: 0,
            })
        }),
        _ => request,
    };
    next.run(request).await
}

struct MeteredBody {
    body: Body,
    caller: Caller,
    /// So many have arrived.
    bytes: u64,
}

impl MeteredBody {
    fn count(&mut self, more: usize) -> Result<(), ApiError> {
        self.caller.check_usable()?;
        let after = self.bytes + more as u64;
        self.caller.count_bytes(self.bytes, after)?;
        self.bytes = after;
        Ok(())
    }
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(task) else {
            return Poll::Pending;
        };
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        match self.count(bytes) {
            Ok(()) => Poll::Ready(frame),
            Err(error) => Poll::Ready(Some(Err(axum::Error::new(BodyError::from(error))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
