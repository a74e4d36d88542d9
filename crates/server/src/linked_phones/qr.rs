//! QR codes as pictures. `whatsapp_sessions.qr_code` holds a PNG as data URL, which a page shows as it is. The text of
//! the code travels along in the PNG's own text field, for programs that have no camera.

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use qrcode::{Color, EcLevel, QrCode};

/// Pixels a module is wide. WhatsApp's codes have 57 to 65 modules a side.
const SCALE: usize = 6;
/// Light modules around the code, as ISO/IEC 18004 demands.
const QUIET_ZONE: usize = 4;
const PREFIX: &str = "data:image/png;base64,";
/// The PNG text chunk that holds the code's text.
const KEYWORD: &str = "QR code";

#[derive(Debug, thiserror::Error)]
pub enum QrError {
    /// QR codes hold up to 2953 bytes.
    #[error("the text does not fit into a QR code")]
    TooLong,
    #[error("the picture could not be made: {0}")]
    Png(#[from] png::EncodingError),
}

/// A PNG of the QR code of `text`, one bit a pixel.
pub fn png(text: &str) -> Result<Vec<u8>, QrError> {
    // A screen is clean: the lowest correction makes the largest modules.
    let code =
        QrCode::with_error_correction_level(text, EcLevel::L).map_err(|_| QrError::TooLong)?;
    let modules = code.width();
    let colors = code.to_colors();
    let side = (modules + 2 * QUIET_ZONE) * SCALE;
    let row_length = side.div_ceil(8);
    // White, then each dark module is painted; a row of modules is drawn once and repeated.
    let mut pixels = vec![0xff_u8; row_length * side];
    for y in 0..modules {
        let mut row = vec![0xff_u8; row_length];
        for x in (0..modules).filter(|x| colors[y * modules + x] == Color::Dark) {
            let left = (x + QUIET_ZONE) * SCALE;
            for pixel in left..left + SCALE {
                row[pixel / 8] &= !(0x80 >> (pixel % 8));
            }
        }
        let top = (y + QUIET_ZONE) * SCALE;
        for line in top..top + SCALE {
            pixels[line * row_length..][..row_length].copy_from_slice(&row);
        }
    }
    let mut bytes = Vec::new();
    let side = u32::try_from(side).map_err(|_| QrError::TooLong)?;
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    if text.is_ascii() {
        encoder.add_text_chunk(KEYWORD.to_owned(), text.to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// [`png`] as a data URL.
pub fn data_url(text: &str) -> Result<String, QrError> {
    Ok(format!("{PREFIX}{}", BASE64_STANDARD.encode(png(text)?)))
}

/// The PNG in a data URL; `None` if it is none.
#[must_use]
pub fn png_of(data_url: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(data_url.strip_prefix(PREFIX)?).ok()
}

/// The text that [`data_url`] was given; `None` for a picture made by somebody else.
#[must_use]
pub fn text_of(data_url: &str) -> Option<String> {
    let reader = png::Decoder::new(Cursor::new(png_of(data_url)?))
        .read_info()
        .ok()?;
    let chunks = &reader.info().uncompressed_latin1_text;
    let chunk = chunks.iter().find(|chunk| chunk.keyword == KEYWORD)?;
    Some(chunk.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as WhatsApp's: a reference and three 32-byte keys.
    fn whatsapp_code() -> String {
        let key = BASE64_STANDARD.encode([0xa5; 32]);
        format!("2@{},{key},{key},{key},1", "Ab9+/".repeat(20))
    }

    fn scan(data_url: &str) -> String {
        let mut decoder = png::Decoder::new(Cursor::new(png_of(data_url).unwrap()));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        let (width, height) = (frame.width as usize, frame.height as usize);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            pixels[y * frame.line_size + x]
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "one code in the picture");
        grids[0].decode().unwrap().1
    }

    #[test]
    fn a_reader_sees_the_text_that_was_drawn() {
        for text in [whatsapp_code(), "x".to_owned(), "واصل".to_owned()] {
            assert_eq!(scan(&data_url(&text).unwrap()), text);
        }
    }

    #[test]
    fn the_text_can_be_taken_from_the_picture_without_a_camera() {
        let code = whatsapp_code();
        let url = data_url(&code).unwrap();
        assert_eq!(text_of(&url), Some(code));
        assert!(
            url.len() < 8192,
            "{} bytes in every change of the row",
            url.len()
        );
        for other in [
            "",
            "data:image/png;base64,AAAA",
            "data:image/png;base64,%",
            "x",
        ] {
            assert_eq!(text_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_text_too_long_for_any_code_is_refused() {
        assert!(matches!(data_url(&"x".repeat(3000)), Err(QrError::TooLong)));
    }
}
