//! Compresses the messages of responses where it pays: large ones, for clients that take gzip.
//!
//! Compression costs more than the bytes of a small answer are worth, and tonic compresses all of a service's answers or none. A
//! message says by its first byte whether it is compressed, so that both may stand in one stream.
//!
//! Invariant: what is not a whole sequence of messages passes as it is.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;
use tonic::body::Body;

const ACCEPTS: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GZIP: &str = "gzip";
/// One byte that says whether it is compressed, four of its length.
const HEAD_BYTES: usize = 5;

/// Whether the sender of a request takes gzip.
pub(super) fn accepted(request: &HeaderMap) -> bool {
    request
        .get_all(ACCEPTS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|encoding| encoding.trim() == GZIP)
}

/// The same response, with each message of more than `above` bytes compressed.
pub(super) fn compress(response: Response<Body>, above: usize) -> Response<Body> {
    // An error that is known already has no messages.
    if response.headers().contains_key(STATUS) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    head.headers
        .insert(ENCODING, HeaderValue::from_static(GZIP));
    Response::from_parts(head, Body::new(Compressing { body, above }))
}

struct Compressing {
    body: Body,
    above: usize,
}

impl HttpBody for Compressing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let above = self.above;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(
            frame.map(|frame| frame.map(|frame| frame.map_data(|data| messages(data, above)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// tonic hands out whole messages: several of them where they are small.
fn messages(data: Bytes, above: usize) -> Bytes {
    if data.len() <= above + HEAD_BYTES {
        return data;
    }
    rewritten(&data, above).unwrap_or(data)
}

/// `None` when nothing changes.
fn rewritten(data: &[u8], above: usize) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(data.len() / 2);
    let (mut rest, mut changed) = (data, false);
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(HEAD_BYTES)?;
        let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
        let (message, tail) = tail.split_at_checked(length)?;
        let compressed = (head[0] == 0 && length > above)
            .then(|| gzip(message))
            .flatten()
            .filter(|compressed| compressed.len() < length);
        match compressed {
            Some(compressed) => {
                out.put_u8(1);
                out.put_u32(u32::try_from(compressed.len()).ok()?);
                out.put_slice(&compressed);
                changed = true;
            }
            None => {
                out.put_slice(head);
                out.put_slice(message);
            }
        }
        rest = tail;
    }
    changed.then(|| out.freeze())
}

fn gzip(message: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(message.len() / 2), Compression::fast());
    encoder.write_all(message).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn framed(messages: &[(u8, &[u8])]) -> Bytes {
        let mut out = BytesMut::new();
        for (flag, message) in messages {
            out.put_u8(*flag);
            out.put_u32(message.len() as u32);
            out.put_slice(message);
        }
        out.freeze()
    }

    #[test]
    fn only_large_messages_are_compressed() {
        let (small, large) = (vec![b'a'; 10], vec![b'b'; 5_000]);
        let data = framed(&[(0, &small), (0, &large)]);
        let out = messages(data, 100);
        assert_eq!(out[..15], framed(&[(0, &small)])[..]);
        assert_eq!(out[15], 1);
        let length = u32::from_be_bytes(out[16..20].try_into().unwrap()) as usize;
        assert_eq!(out.len(), 20 + length);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&out[20..])
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, large);
    }

    #[test]
    fn the_rest_passes_as_it_is() {
        let large = vec![b'b'; 5_000];
        let small = framed(&[(0, b"hello"), (0, b"world")]);
        assert_eq!(messages(small.clone(), 100), small);
        let done_already = framed(&[(1, &large)]);
        assert_eq!(messages(done_already.clone(), 100), done_already);
        let broken = framed(&[(0, &large)]).slice(..4_000);
        assert_eq!(messages(broken.clone(), 100), broken);
        let incompressible: Vec<u8> = (0..1_000u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let data = framed(&[(0, &incompressible)]);
        assert!(messages(data.clone(), 100).len() <= data.len());
    }

    #[test]
    fn who_takes_gzip_says_so() {
        let accepts = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPTS, HeaderValue::from_static(value));
            }
            accepted(&headers)
        };
        assert!(accepts(&["identity,deflate, gzip"]));
        assert!(accepts(&["identity", "gzip"]));
        assert!(!accepts(&["identity,xgzip"]));
        assert!(!accepts(&[]));
    }
}
