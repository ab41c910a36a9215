//! Compressed bodies.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Compresses bodies with gzip at a fast level, as a device would.
#[derive(Debug, Default)]
pub(crate) struct Gzip {
    plain: Vec<u8>,
}

impl Gzip {
    /// Appends a request: the head (if any) with the length that it lacks, and the body.
    pub(crate) fn append(
        &mut self,
        head: &[u8],
        render: impl FnOnce(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        self.plain.clear();
        render(&mut self.plain);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory cannot fail.
        encoder.write_all(&self.plain).ok();
        let compressed = encoder.finish().unwrap_or_default();
        if !head.is_empty() {
            out.extend_from_slice(head);
            out.extend_from_slice(
                format!("Content-Length: {}\r\n\r\n", compressed.len()).as_bytes(),
            );
        }
        out.extend_from_slice(&compressed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_compressed_body_decompresses_to_what_was_rendered() {
        let mut out = Vec::new();
        let render = |out: &mut Vec<u8>| out.extend_from_slice(&[b'x'; 1000]);
        Gzip::default().append(b"POST\r\n", render, &mut out);
        let end = out.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(out[..end].to_vec()).unwrap();
        let length = out.len() - end;
        assert_eq!(head, format!("POST\r\nContent-Length: {length}\r\n\r\n"));
        let mut plain = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&out[end..]);
        decoder.read_to_string(&mut plain).unwrap();
        assert_eq!(plain, "x".repeat(1000));
    }
}
