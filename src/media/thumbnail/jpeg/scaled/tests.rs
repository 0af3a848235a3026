//! Held against the decoder that knows all kinds: a smaller size is the mean of the whole one.

use std::{f64::consts::PI, time::Duration};

use super::*;

/// A picture of soft colours.
#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    height: usize,
    /// Columns and rows of blocks of each component in a group.
    samplings: &'static [(usize, usize)],
    restart_interval: usize,
}

/// No multiple of anything.
const SIZE: (u32, u32) = (93, 61);
const WHOLE: &[(usize, usize)] = &[(1, 1), (1, 1), (1, 1)];
const QUARTERED: &[(usize, usize)] = &[(2, 2), (1, 1), (1, 1)];
const SAMPLINGS: [&[(usize, usize)]; 8] = [
    WHOLE,
    QUARTERED,
    &[(2, 1), (1, 1), (1, 1)],
    &[(1, 2), (1, 1), (1, 1)],
    &[(4, 1), (1, 1), (1, 1)],
    &[(2, 2), (2, 1), (1, 2)],
    &[(1, 1)],
    &[(2, 2)],
];

impl Shape {
    /// Of a component, in its own pixels.
    fn sample(&self, component: usize, x: usize, y: usize) -> f64 {
        let (columns, rows) = self.samplings[component];
        let [h, v] = self.most();
        let x = (float(x) + 0.5) * float(h) / float(columns) / float(self.width);
        let y = (float(y) + 0.5) * float(v) / float(rows) / float(self.height);
        match component {
            0 => 128.0 + 90.0 * (PI * (x + 0.5 * y)).cos(),
            1 => 100.0 + 20.0 * y.min(1.0),
            _ => 160.0 - 20.0 * x.min(1.0),
        }
    }

    fn most(&self) -> [usize; 2] {
        let most = |side: fn(&(usize, usize)) -> usize| self.samplings.iter().map(side).max().unwrap();
        if self.samplings.len() == 1 { self.samplings[0].into() } else { [most(|s| s.0), most(|s| s.1)] }
    }

    fn file(&self) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        let mut segment = |marker: u8, contents: &[u8]| {
            file.extend([0xff, marker]);
            file.extend(u16::try_from(contents.len() + 2).unwrap().to_be_bytes());
            file.extend(contents);
        };
        segment(0xfe, b"a comment");
        segment(0xdb, &[&[0][..], &[3; 64]].concat());
        let (dc, ac): (Vec<u8>, Vec<u8>) = ((0..12).collect(), (0..=255).filter(|symbol| *symbol != 255).collect());
        let counts = |length: usize, symbols: &[u8]| {
            let mut counts = [0; 16];
            counts[length - 1] = u8::try_from(symbols.len()).unwrap();
            counts
        };
        segment(0xc4, &[&[0x00][..], &counts(4, &dc), &dc, &[0x10], &counts(8, &ac), &ac].concat());
        let restart_interval = u16::try_from(self.restart_interval).unwrap().to_be_bytes();
        segment(0xdd, &restart_interval);
        let (mut frame, mut scan) = (vec![8], vec![u8::try_from(self.samplings.len()).unwrap()]);
        frame.extend(u16::try_from(self.height).unwrap().to_be_bytes());
        frame.extend(u16::try_from(self.width).unwrap().to_be_bytes());
        frame.push(scan[0]);
        for (id, (columns, rows)) in (1..).zip(self.samplings) {
            frame.extend([id, u8::try_from(16 * columns + rows).unwrap(), 0]);
            scan.extend([id, 0x00]);
        }
        scan.extend([0, 63, 0]);
        segment(0xc0, &frame);
        segment(0xda, &scan);
        file.extend(self.scan());
        file.extend([0xff, 0xd9]);
        file
    }

    fn scan(&self) -> Vec<u8> {
        let single = [(1, 1)];
        let samplings = if self.samplings.len() == 1 { &single[..] } else { self.samplings };
        let [h, v] = if samplings.len() == 1 { [1, 1] } else { self.most() };
        let (across, down) = (self.width.div_ceil(8 * h), self.height.div_ceil(8 * v));
        let (mut bits, mut means) = (Written::default(), [0; 3]);
        for group in 0..across * down {
            if self.restart_interval > 0 && group > 0 && group % self.restart_interval == 0 {
                bits.restart(group / self.restart_interval - 1);
                means = [0; 3];
            }
            for (component, (columns, rows)) in samplings.iter().enumerate() {
                for block in 0..columns * rows {
                    let left = 8 * (group % across * columns + block % columns);
                    let top = 8 * (group / across * rows + block / columns);
                    bits.block(&mut means[component], |x, y| self.sample(component, left + x, top + y));
                }
            }
        }
        bits.end();
        bits.bytes
    }
}

/// Bits of pixels. A code is its symbol itself, in four bits or in eight.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    bits: Vec<bool>,
}

impl Written {
    fn put(&mut self, value: i32, count: u32) {
        for bit in (0..count).rev() {
            self.bits.push(value >> bit & 1 == 1);
            if self.bits.len() == 8 {
                let byte = self.bits.drain(..).fold(0, |byte, bit| byte << 1 | u8::from(bit));
                self.bytes.push(byte);
                if byte == 0xff {
                    self.bytes.push(0);
                }
            }
        }
    }

    fn number(&mut self, zeros: i32, number: i32, code: u32) {
        let size = 32 - number.unsigned_abs().leading_zeros();
        self.put(zeros << 4 | i32::try_from(size).unwrap(), code);
        self.put(if number < 0 { number + (1 << size) - 1 } else { number }, size);
    }

    fn block(&mut self, mean: &mut i32, sample: impl Fn(usize, usize) -> f64) {
        let zigzag = dct::ZIGZAG;
        let coefficients = zigzag.map(|place| {
            let (column, row) = (f64::from(place % 8), f64::from(place / 8));
            let scale = |frequency: f64| if frequency == 0.0 { 0.5_f64.sqrt() } else { 1.0 };
            let wave = |at: usize, frequency: f64| ((2.0 * float(at) + 1.0) * frequency * PI / 16.0).cos();
            let pixels = (0..64).map(|at| (sample(at % 8, at / 8) - 128.0) * wave(at % 8, column) * wave(at / 8, row));
            whole(pixels.sum::<f64>() * scale(column) * scale(row) / 4.0 / 3.0)
        });
        self.number(0, coefficients[0] - *mean, 4);
        *mean = coefficients[0];
        let mut zeros = 0;
        for coefficient in &coefficients[1..] {
            if *coefficient == 0 {
                zeros += 1;
                continue;
            }
            for _ in 0..zeros / 16 {
                self.put(0xf0, 8);
            }
            self.number(zeros % 16, *coefficient, 8);
            zeros = 0;
        }
        if zeros > 0 {
            self.put(0, 8);
        }
    }

    /// Ones fill the last byte.
    fn end(&mut self) {
        while !self.bits.is_empty() {
            self.put(1, 1);
        }
    }

    fn restart(&mut self, number: usize) {
        self.end();
        self.bytes.extend([0xff, 0xd0 + u8::try_from(number % 8).unwrap()]);
    }
}

fn float(value: usize) -> f64 {
    f64::from(u32::try_from(value).unwrap())
}

#[expect(clippy::cast_possible_truncation, reason = "no coefficient is so large")]
fn whole(value: f64) -> i32 {
    value.round() as i32
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_mins(5))
}

fn scaled(file: &[u8], scale: u8) -> Option<Scaled> {
    decode(file, SIZE, scale, soon()).unwrap()
}

fn shape(samplings: &'static [(usize, usize)], restart_interval: usize) -> Shape {
    Shape { width: 93, height: 61, samplings, restart_interval }
}

/// The largest difference to the means of squares of the whole picture, in any colour.
fn difference(file: &[u8], scaled: &Scaled) -> u32 {
    let whole = image::load_from_memory(file).unwrap().into_rgb8();
    assert_eq!(whole.dimensions(), SIZE);
    let scale = u32::from(scaled.scale);
    assert_eq!(scaled.width, whole.width().div_ceil(scale));
    let (pixels, _) = scaled.pixels.as_chunks::<3>();
    assert_eq!(pixels.len(), (scaled.width * whole.height().div_ceil(scale)) as usize);
    let mut most = 0;
    for (index, pixel) in (0..).zip(pixels) {
        let (left, top) = (index % scaled.width * scale, index / scaled.width * scale);
        // Those at the sides are of less than a square.
        if left + scale > whole.width() || top + scale > whole.height() {
            continue;
        }
        for (place, made) in rgb(*pixel).into_iter().enumerate() {
            let square =
                (0..scale * scale).map(|at| u32::from(whole.get_pixel(left + at % scale, top + at / scale)[place]));
            let mean = (square.sum::<u32>() + scale * scale / 2) / (scale * scale);
            most = most.max(mean.abs_diff(made.into()));
        }
    }
    most
}

#[test]
fn a_smaller_size_is_the_mean_of_the_whole() {
    for samplings in SAMPLINGS {
        for restart_interval in [0, 1, 5] {
            let file = shape(samplings, restart_interval).file();
            for scale in [2, 4, 8] {
                let scaled = scaled(&file, scale).unwrap_or_else(|| panic!("{samplings:?} is not known"));
                let difference = difference(&file, &scaled);
                assert!(difference <= 6, "{samplings:?} at 1/{scale}: {difference}");
            }
        }
    }
}

/// With the codes that most programs write, and pixels that are finer than a smaller size has room for.
#[test]
fn files_of_another_program_are_known() {
    let byte = |value: u32| u8::try_from(value % 256).unwrap();
    let image = image::RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| {
        let noise = |seed: u32| (x * 7919 + y * 104_729 + seed) % 61;
        image::Rgb([byte(x / 2 + noise(1)), byte(y + noise(2)), byte(100 + noise(3))])
    });
    let mean = |pixels: &[[u8; 3]]| {
        let sums = pixels
            .iter()
            .fold([0; 3], |[rs, gs, bs], [r, g, b]| [rs + u64::from(*r), gs + u64::from(*g), bs + u64::from(*b)]);
        sums.map(|sum| sum / pixels.len() as u64)
    };
    for quality in [30, 85, 100] {
        let mut file = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, quality).encode_image(&image).unwrap();
        let whole = image::load_from_memory(&file).unwrap().into_rgb8();
        let expected = mean(whole.as_raw().as_chunks().0);
        for scale in [2, 4, 8] {
            let scaled = scaled(&file, scale).unwrap();
            let pixels: Vec<_> = scaled.pixels.as_chunks().0.iter().map(|pixel| rgb(*pixel)).collect();
            for (made, expected) in mean(&pixels).into_iter().zip(expected) {
                assert!(made.abs_diff(expected) <= 2, "{quality} at 1/{scale}: {made} is not {expected}");
            }
        }
    }
}

/// Replaces what stands once in a file.
fn with(file: &[u8], there: &[u8], instead: &[u8]) -> Vec<u8> {
    let place = file.windows(there.len()).position(|window| window == there).unwrap();
    [&file[..place], instead, &file[place + there.len()..]].concat()
}

#[test]
fn what_is_unusual_is_left_to_the_other_decoder() {
    let file = shape(WHOLE, 5).file();
    assert!(scaled(&file, 2).is_some());
    let adobe = |transform: u8| {
        let segment = [&[0xff, 0xee, 0, 14][..], b"Adobe", &[0, 100, 0, 0, 0, 0, transform]].concat();
        [&file[..2], &segment, &file[2..]].concat()
    };
    assert!(scaled(&adobe(1), 2).is_some());
    let frame = [0xff, 0xc0, 0, 17, 8];
    for (why, unusual) in [
        ("red, green and blue", adobe(0)),
        ("CMYK", adobe(2)),
        ("progressive", with(&file, &frame, &[0xff, 0xc2, 0, 17, 8])),
        ("arithmetic", with(&file, &frame, &[0xff, 0xc9, 0, 17, 8])),
        ("twelve bits", with(&file, &frame, &[0xff, 0xc0, 0, 17, 12])),
        ("of no height", with(&file, &[8, 0, 61, 0, 93], &[8, 0, 0, 0, 93])),
        ("of another size", with(&file, &[8, 0, 61, 0, 93], &[8, 0, 62, 0, 93])),
        ("a component of three blocks", with(&file, &[1, 0x11, 0], &[1, 0x31, 0])),
        ("a component of none", with(&file, &[1, 0x11, 0], &[1, 0x10, 0])),
        ("red, green and blue by name", {
            let frame = with(&file, &[1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0], b"R\x11\0G\x11\0B\x11\0");
            with(&frame, &[3, 1, 0, 2, 0, 3, 0, 0, 63, 0], b"\x03R\0G\0B\0\0\x3f\0")
        }),
        ("a scan of some frequencies", with(&file, &[0, 63, 0], &[0, 5, 0])),
        ("a table that is not there", with(&file, &[2, 0x11, 0], &[2, 0x11, 1])),
        ("a code that is not there", with(&file, &[3, 1, 0, 2, 0, 3, 0], &[3, 1, 0, 2, 0x11, 3, 0])),
        ("another restart", with(&file, &[0xff, 0xd1], &[0xff, 0xd2])),
        ("no restart", with(&file, &[0xff, 0xd1], &[])),
        ("an end", with(&file, &[0xff, 0xd1], &[0xff, 0xd9])),
        ("tables of two bytes", with(&file, &[0xff, 0xdb, 0, 67, 0], &[0xff, 0xdb, 0, 67, 16])),
        ("no picture", b"\xff\xd8\xff\xd9".to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert!(scaled(&unusual, 2).is_none(), "{why}");
    }
}

#[test]
fn what_breaks_off_is_left_to_the_other_decoder() {
    let file = shape(QUARTERED, 5).file();
    // The last byte of its pixels may only fill one up, and behind it stands that it ends.
    for end in 0..file.len() - 3 {
        assert!(scaled(&file[..end], 2).is_none(), "{end} of {}", file.len());
    }
    assert!(scaled(&file[..file.len() - 2], 2).is_some());
}

#[test]
fn whatever_is_in_a_file_it_is_read_to_its_end() {
    let file = shape(QUARTERED, 5).file();
    let mut seed = 1_u32;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed as usize % below
    };
    for _ in 0..1_000 {
        let mut changed = file.clone();
        for _ in 0..=random(4) {
            changed[random(file.len())] = u8::try_from(random(256)).unwrap();
        }
        for scale in [2, 8] {
            if let Some(Scaled { pixels, width, .. }) = scaled(&changed, scale) {
                assert_eq!(pixels.len(), (3 * width * SIZE.1.div_ceil(scale.into())) as usize);
            }
        }
    }
}

#[test]
fn what_takes_too_long_is_broken_off() {
    let over = Deadline::after(Duration::ZERO);
    assert!(matches!(decode(&shape(WHOLE, 0).file(), SIZE, 2, over), Err(NoThumbnail::TooSlow)));
}
