use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

fn frames_from(log: &OutputLog, position: u64) -> Vec<Output> {
    let mut reader = log.read_from(position);
    let mut frames = Vec::new();
    loop {
        let frame = reader.next(|| false).expect("no stop asked for");
        let last = matches!(frame, Output::Exited(_));
        frames.push(frame);
        if last {
            return frames;
        }
    }
}

#[test]
fn streams_come_back_in_the_order_of_arrival_and_end_with_the_exit() {
    let log = OutputLog::default();
    log.append(Stream::Stdout, b"one ");
    log.append(Stream::Stdout, b"two");
    log.append(Stream::Stderr, b"oops");
    log.append(Stream::Stdout, b"three");
    log.finish(ExitStatus::Code(3));
    assert_eq!(
        frames_from(&log, 0),
        [
            Output::Stdout(b"one two".to_vec()),
            Output::Stderr(b"oops".to_vec()),
            Output::Stdout(b"three".to_vec()),
            Output::Exited(ExitStatus::Code(3)),
        ]
    );
}

#[test]
fn a_reader_starts_at_its_position_even_inside_a_piece() {
    let log = OutputLog::default();
    log.append(Stream::Stdout, b"abcdef");
    log.finish(ExitStatus::Signal(9));
    assert_eq!(frames_from(&log, 4)[0], Output::Stdout(b"ef".to_vec()));
    assert_eq!(frames_from(&log, 600), [Output::Exited(ExitStatus::Signal(9))]);
}

#[test]
fn a_reader_that_comes_too_late_gets_the_oldest_bytes_there_are() {
    let log = OutputLog::default();
    log.append(Stream::Stdout, &vec![b'a'; CAPACITY_BYTES]);
    log.append(Stream::Stderr, b"tail");
    log.finish(ExitStatus::Code(0));
    let bytes: usize = frames_from(&log, 0)
        .iter()
        .map(|frame| match frame {
            Output::Stdout(bytes) | Output::Stderr(bytes) => {
                assert!(bytes.len() <= MAX_FRAME_PAYLOAD_BYTES);
                bytes.len()
            }
            Output::Exited(_) => 0,
        })
        .sum();
    assert_eq!(bytes, CAPACITY_BYTES);
}

#[test]
fn a_following_reader_sees_output_as_it_arrives_and_can_be_stopped() {
    let log = OutputLog::default();
    let gone = Arc::new(AtomicBool::new(false));
    let mut reader = log.read_from(0);
    let part = reader.part();
    let reader = thread::spawn({
        let gone = gone.clone();
        move || {
            let first = reader.next(|| gone.load(Ordering::Relaxed));
            (first, reader.next(|| gone.load(Ordering::Relaxed)))
        }
    });
    log.append(Stream::Stdout, b"live");
    while !reader.is_finished() {
        gone.store(true, Ordering::Relaxed);
        part.wake();
        thread::yield_now();
    }
    let (first, second) = reader.join().expect("reader");
    assert!(first.is_none() || first == Some(Output::Stdout(b"live".to_vec())));
    assert_eq!(second, None);
}

#[test]
fn a_new_part_ends_the_old_one_for_its_readers_and_begins_with_nothing() {
    let log = OutputLog::default();
    log.append(Stream::Stdout, b"built");
    let mut early = log.read_from(0);
    log.begin_part();
    log.append(Stream::Stdout, b"launched");
    assert_eq!(early.next(|| false), Some(Output::Stdout(b"built".to_vec())));
    assert_eq!(early.next(|| false), None);
    let mut late = log.read_from(0);
    assert_eq!(late.next(|| false), Some(Output::Stdout(b"launched".to_vec())));
    log.finish(ExitStatus::Code(0));
    assert_eq!(late.next(|| false), Some(Output::Exited(ExitStatus::Code(0))));
}

#[test]
fn an_application_that_ended_before_a_new_part_has_ended_in_it() {
    let log = OutputLog::default();
    log.append(Stream::Stdout, b"built");
    log.finish(ExitStatus::Code(7));
    log.begin_part();
    assert_eq!(frames_from(&log, 0), [Output::Exited(ExitStatus::Code(7))]);
}

proptest! {
    #[test]
    fn the_ring_holds_exactly_the_newest_bytes_of_each_stream(
        writes in prop::collection::vec((any::<bool>(), 0usize..40_000), 0..40),
        from in 0u64..600_000,
    ) {
        let log = OutputLog::default();
        let mut all = Vec::new();
        for (index, (error, length)) in writes.iter().enumerate() {
            let stream = if *error { Stream::Stderr } else { Stream::Stdout };
            let data = vec![index as u8; *length];
            log.append(stream, &data);
            all.extend(data.iter().map(|byte| (stream, *byte)));
        }
        log.finish(ExitStatus::Code(0));
        let mut got = Vec::new();
        for frame in frames_from(&log, from) {
            match frame {
                Output::Stdout(bytes) => got.extend(bytes.into_iter().map(|byte| (Stream::Stdout, byte))),
                Output::Stderr(bytes) => got.extend(bytes.into_iter().map(|byte| (Stream::Stderr, byte))),
                Output::Exited(_) => {}
            }
        }
        let oldest = all.len().saturating_sub(CAPACITY_BYTES);
        let start = (from as usize).clamp(oldest, all.len());
        prop_assert_eq!(got, &all[start..]);
    }

    #[test]
    fn alternating_single_bytes_stay_bounded(count in 0usize..20_000) {
        let mut ring = Ring::default();
        for index in 0..count {
            ring.append(if index % 2 == 0 { Stream::Stdout } else { Stream::Stderr }, b"x");
        }
        prop_assert!(ring.pieces.len() <= MAX_PIECES);
        prop_assert_eq!(ring.pieces.iter().map(|piece| piece.1).sum::<usize>(), ring.bytes.len());
        prop_assert_eq!(ring.first + ring.bytes.len() as u64, count as u64);
    }
}
