//! Smaller pictures of pictures, made of files that strangers have sent.
//!
//! What is made says only what is seen: it is written anew from pixels, without places, times and names of cameras. What
//! a picture costs is known from its beginning, and refused if it is too much; a decoder that panics all the same has
//! found the picture broken.
//!
//! Pure but for the file, and done on a thread that may be busy for seconds: `thumbnails.rs` has those.

mod animation;
mod bounds;
#[cfg(test)]
pub(crate) mod examples;
mod jpeg;
mod resize;
mod source;
mod still;
#[cfg(test)]
mod tests;
mod variant;
mod webp;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use self::{bounds::Deadline, resize::Plan, source::Source};
pub(crate) use self::{
    bounds::{Limits, NoThumbnail},
    still::Picture,
    variant::{Method, Variant, choose},
};

/// What there is to show.
#[derive(Debug)]
pub(crate) enum Outcome {
    Made(Picture),
    /// The picture itself: it is no larger than what is wanted, of a kind that clients show, and says no more than a
    /// thumbnail would.
    AsItIs,
}

/// Makes a thumbnail of the picture in a file, within [`Limits`]. It may take all of their time and memory.
pub(crate) fn make(path: &Path, variant: &Variant, limits: &Limits) -> Result<Outcome, NoThumbnail> {
    let deadline = Deadline::after(limits.time);
    guarded(deadline, || {
        let source = Source::open(path, limits, deadline)?;
        let (width, height) = source.upright_size();
        let is_small = width <= variant.width && height <= variant.height;
        if is_small
            && source.is_servable()
            && (variant.animated || !source.is_animated()?)
            && !source.carries_metadata()?
        {
            return Ok(Outcome::AsItIs);
        }
        let plan = source.plan(variant);
        if variant.animated
            && source.animation_memory(&plan).is_some()
            && let Some(picture) = animation::make(&source, &plan, limits)?
        {
            return Ok(Outcome::Made(picture));
        }
        make_still(&source, &plan, limits).map(Outcome::Made)
    })
}

/// As [`make`], of a picture that nobody is to have as it is. The thumbnail stands still.
pub(crate) fn make_anew(path: &Path, variant: &Variant, limits: &Limits) -> Result<Picture, NoThumbnail> {
    let deadline = Deadline::after(limits.time);
    guarded(deadline, || {
        let source = Source::open(path, limits, deadline)?;
        make_still(&source, &source.plan(variant), limits)
    })
}

fn make_still(source: &Source<'_>, plan: &Plan, limits: &Limits) -> Result<Picture, NoThumbnail> {
    if source.memory(plan) > limits.max_memory { Err(NoThumbnail::TooLarge) } else { still::make(source, plan) }
}

/// How many bytes [`memory_needed`] itself needs at most, for a file of so many of which it is known what it looks like,
/// or is not.
pub(crate) fn memory_to_look(file_bytes: u64, sniffed_type: Option<&str>, limits: &Limits) -> u64 {
    if matches!(sniffed_type, None | Some("image/tiff")) { source::lists(file_bytes, limits) } else { 0 }
}

/// How many bytes [`make`] needs at most at once, beside what the thumbnail itself has. Reads only the beginning of the
/// picture, or skims through it.
pub(crate) fn memory_needed(path: &Path, variant: &Variant, limits: &Limits) -> Result<u64, NoThumbnail> {
    let deadline = Deadline::after(limits.time);
    guarded(deadline, || {
        let source = Source::open(path, limits, deadline)?;
        let plan = source.plan(variant);
        let moving = if variant.animated { source.animation_memory(&plan) } else { None };
        let needed = moving.unwrap_or(0).max(source.memory(&plan));
        if needed > limits.max_memory { Err(NoThumbnail::TooLarge) } else { Ok(needed) }
    })
}

/// Decoders say in many ways that they were broken off, and some panic.
fn guarded<T>(deadline: Deadline, work: impl FnOnce() -> Result<T, NoThumbnail>) -> Result<T, NoThumbnail> {
    let done = catch_unwind(AssertUnwindSafe(work));
    match done.unwrap_or_else(|_| Err(NoThumbnail::broken("the decoder has panicked"))) {
        Err(NoThumbnail::Broken(_)) if deadline.is_over() => Err(NoThumbnail::TooSlow),
        done => done,
    }
}
