"""Sound files in and out, and resampling."""

import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable
from support import GOLDEN

from edgepack.errors import UsageError
from edgepack.runtime.audio import sound_file, waveform

RATES = [16000, 22050, 24000, 44100, 48000]
STEP = 1 / 32768  # of 16-bit samples


def sine(hertz: float, rate: int, seconds: float = 0.3) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path, samples = tmp_path / "a.wav", sine(440, 24000)
    sound_file.write(path, samples, 24000)
    recording = waveform.read(path)
    assert (recording.name, recording.rate, recording.seconds) == (str(path), 24000, 0.3)
    assert recording.samples.dtype == np.float32
    np.testing.assert_allclose(recording.samples, samples, rtol=0, atol=STEP)
    assert list(tmp_path.iterdir()) == [path]
    assert soundfile.info(path).subtype == "PCM_16"


def test_samples_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    sound_file.write(tmp_path / "a.wav", np.array([0, 1.5, -1.5, 1, -1], np.float32), 16000)
    samples = waveform.read(tmp_path / "a.wav").samples
    np.testing.assert_allclose(samples, [0, 1, -1, 1, -1], rtol=0, atol=STEP)


def test_nothing_at_all_can_be_written(tmp_path: Path) -> None:
    sound_file.write(tmp_path / "a.wav", np.zeros(0, np.float32), 24000)
    assert waveform.read(tmp_path / "a.wav").seconds == 0


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for count in (100, 7):
        sound_file.write(path, np.zeros(count, np.float32), 24000)
    assert len(waveform.read(path).samples) == 7


@pytest.mark.parametrize("container", ["wav", "flac", "ogg"])
def test_channels_are_averaged(tmp_path: Path, container: str) -> None:
    left, right = sine(200, 16000), sine(300, 16000)
    path = tmp_path / f"a.{container}"
    soundfile.write(path, np.stack([left, right], 1), 16000)
    samples = waveform.read(path).samples
    assert samples.shape == left.shape
    assert np.abs(samples - (left + right) / 2).mean() < 0.02


@pytest.mark.parametrize("gains", [(1, -1), (1, -0.7), (0.4, -0.5), (1, -1, 1, -1)])
def test_of_channels_that_cancel_the_loudest_is_taken(
    tmp_path: Path, gains: tuple[float, ...]
) -> None:
    voice = sine(200, 16000)
    channels = np.stack([gain * voice for gain in gains], 1) + 0.3  # an offset is not loud
    soundfile.write(tmp_path / "a.wav", channels, 16000, subtype="FLOAT")
    found = waveform.read(tmp_path / "a.wav").samples
    loudest = channels[:, np.argmax(np.abs(gains))]
    np.testing.assert_allclose(found, loudest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gains", [(1, 0), (1, 0.5), (1, -0.2), (0, 0, 0, 0, 1, 0, 0, 0)])
def test_channels_that_do_not_are_averaged(tmp_path: Path, gains: tuple[float, ...]) -> None:
    channels = np.stack([gain * sine(200, 16000) for gain in gains], 1)
    soundfile.write(tmp_path / "a.wav", channels, 16000, subtype="FLOAT")
    found = waveform.read(tmp_path / "a.wav").samples
    np.testing.assert_allclose(found, channels.mean(1), rtol=0, atol=1e-6)


def test_floats_of_16_bit_numbers_are_scaled(tmp_path: Path) -> None:
    samples = np.concatenate([32768 * sine(200, 16000), [-32768.0]])
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert np.array_equal(waveform.read(tmp_path / "a.wav").samples, (samples / 32768).astype("f4"))


@pytest.mark.parametrize("peak", [1.0, 1.9, 7.5])
def test_floats_a_little_above_full_scale_are_not(tmp_path: Path, peak: float) -> None:
    soundfile.write(tmp_path / "a.wav", peak * sine(200, 16000), 16000, subtype="FLOAT")
    found = waveform.read(tmp_path / "a.wav").samples
    assert np.array_equal(found, (peak * sine(200, 16000)).astype("f4"))


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_cannot_be_heard_is_refused(rate: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    voice = sine(200, rate, 1.0)
    dither = (np.round(rng.triangular(-1, 0, 1, rate)) / 32768).astype(np.float32)
    for silent in (0 * voice, dither, 0 * voice + 0.5, dither - 0.9, 0.0013 * voice):
        recording = waveform.Recording(
            "a.wav", waveform._mixed(np.stack([silent] * channels, 1)), rate
        )
        with pytest.raises(UsageError, match=r"a\.wav: nothing is heard in it"):
            waveform.require_heard(recording)
    waveform.require_heard(waveform.Recording("a.wav", 0.01 * voice + 0.3, rate))


@pytest.mark.parametrize("peak", [32767.0, np.nan, np.inf])
def test_samples_of_a_caller_are_in_their_range(peak: float) -> None:
    with pytest.raises(UsageError, match=r"a\.wav: samples of .*; they have to be in ±1"):
        waveform.require_heard(
            waveform.Recording("a.wav", peak * np.ones(16000, np.float32), 16000)
        )


def test_a_low_rate_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(200, 15999), 15999)
    with pytest.raises(UsageError, match="15999 Hz is too low"):
        waveform.read(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [16000, 22050, 24000, 32000, 37800, 44100, 48000, 88200, 96000])
def test_rates_of_devices_are_read(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(300, rate), rate)
    assert waveform.read(tmp_path / "a.wav").rate == rate


@pytest.mark.parametrize("rate", [47_999, 96_001, 44_056])
def test_a_rate_without_a_small_ratio_is_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(300, rate), rate)
    with pytest.raises(UsageError, match=f"{rate} Hz is a rate that nothing records at"):
        waveform.read(tmp_path / "a.wav")


def test_a_rate_that_nobody_records_at_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(200, 192001), 192001)
    with pytest.raises(UsageError, match="192001 Hz is too high"):
        waveform.read(tmp_path / "a.wav")


def test_many_channels_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((160, 9)), 16000)
    with pytest.raises(UsageError, match="9 channels"):
        waveform.read(tmp_path / "a.wav")


@pytest.mark.parametrize("header", ["true", "unknown length"])
def test_a_long_recording_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(60 * 16000, np.int16), 16000)
    if header != "true":
        data = bytearray(path.read_bytes())
        data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])  # samples in all, by STREAMINFO
        path.write_bytes(data)
    decoded: list[int] = []
    real = soundfile.SoundFile.read

    def counted(self: soundfile.SoundFile, frames: int, *rest: object, **more: object) -> object:
        block = real(self, frames, *rest, **more)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    with pytest.raises(UsageError, match=r"s long; .* 0\.5 to 30 s"):
        waveform.read(path)
    assert sum(decoded) <= 31 * 16000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0, bad, 0], np.float32), 16000, subtype="FLOAT")
    with pytest.raises(UsageError, match="not finite"):
        waveform.read(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [None, b"", b"RIFF", b"not a sound file" * 100])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.wav: not a readable sound file"):
        waveform.read(path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such folder to write a\.wav to"):
        sound_file.write(tmp_path / "nowhere" / "a.wav", np.zeros(10, np.float32), 24000)


@pytest.mark.parametrize("new", [16000, 24000])
@pytest.mark.parametrize("old", [16000, 22050, 44100, 48000])
def test_resampling_is_that_of_the_original(old: int, new: int) -> None:
    recorded = np.load(GOLDEN / "common" / "frontend.npz")
    samples = waveform.resample(recorded[f"src_{old}"], old, new)
    assert samples.dtype == np.float32
    wanted = recorded[f"src_{old}_to{new // 1000}k"][0]
    np.testing.assert_allclose(samples, wanted, rtol=0, atol=3e-6)


def test_a_recording_is_resampled_as_the_original_does() -> None:
    recorded = np.load(GOLDEN / "common" / "frontend.npz")
    prompt = waveform.read(GOLDEN / "common" / "prompt_24k.wav")
    assert np.array_equal(prompt.at(24000), recorded["wav_24k"][0])
    np.testing.assert_allclose(prompt.at(16000), recorded["wav_16k"][0], rtol=0, atol=3e-6)


@pytest.mark.parametrize("old", RATES)
@pytest.mark.parametrize("new", [16000, 24000])
def test_a_sine_stays_the_same_sine(old: int, new: int) -> None:
    found, wanted = waveform.resample(sine(1000, old), old, new), sine(1000, new)
    inside = slice(200, -200)
    np.testing.assert_allclose(found[inside], wanted[inside], rtol=0, atol=2e-3)


@pytest.mark.parametrize("hertz", [10000, 13000, 20000])
def test_what_the_new_rate_cannot_hold_is_removed(hertz: float) -> None:
    found = waveform.resample(sine(hertz, 48000), 48000, 16000)
    assert np.abs(found[200:-200]).max() < 0.01


@pytest.mark.parametrize("old", [47999, 96001, 191999])
def test_a_rate_without_a_common_divisor_needs_little_memory(old: int) -> None:
    samples = sine(1000, old, 1.0)
    tracemalloc.start()
    found = waveform.resample(samples, old, 24000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6
    np.testing.assert_allclose(found[200:-200], sine(1000, 24000, 1.0)[200:-200], rtol=0, atol=2e-3)


@repeatable
@given(st.integers(1, 3000), st.sampled_from(RATES), st.sampled_from(RATES))
def test_resampling_keeps_the_length_in_time(count: int, old: int, new: int) -> None:
    samples = waveform.resample(np.ones(count, np.float32), old, new)
    assert len(samples) == -(-count * new // old)
    assert np.isfinite(samples).all()


def test_a_file_that_grows_appears_when_it_is_whole(tmp_path: Path) -> None:
    path, samples = tmp_path / "a.wav", sine(440, 24000)
    with sound_file.Writer(path, 24000) as writer:
        for part in np.array_split(samples, 7):
            writer.write(part)
            assert not path.exists()
    np.testing.assert_allclose(waveform.read(path).samples, samples, rtol=0, atol=STEP)
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_keeps_what_was_written_and_a_fault_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"

    def write(seconds: float, ends_in: BaseException) -> None:
        with sound_file.Writer(path, 24000) as writer:
            writer.write(np.zeros(int(seconds * 24000), np.float32))
            raise ends_in

    with pytest.raises(KeyboardInterrupt):
        write(0.01, KeyboardInterrupt())
    assert waveform.read(path).seconds == 0.01
    with pytest.raises(UsageError, match="broke"):
        write(0.1, UsageError("broke"))
    assert waveform.read(path).seconds == 0.01
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_before_anything_was_written_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), sound_file.Writer(path, 24000):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_stream_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for name in (".a.wav.4711.tmp", ".a.wav.01234567.tmp"):
        (tmp_path / name).write_bytes(b"half")
    with sound_file.Writer(path, 24000) as writer:
        writer.write(sine(440, 24000))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_no_folder_cannot_grow(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        sound_file.Writer(tmp_path / "no" / "a.wav", 24000)


@pytest.mark.parametrize("name", ["a.raw", "a.RAW", "\udcff.wav"])
def test_what_has_no_header_or_no_name_is_one_of_our_errors(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(96000))
    (tmp_path / "a.RAW").write_bytes(bytes(96000))
    with pytest.raises(UsageError, match="not a readable sound file"):
        waveform.read(tmp_path / name)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_next_to_no_samples_are_resampled(count: int) -> None:
    assert waveform.resample(np.ones(count, np.float32), 48000, 16000).shape == (min(count, 1),)


@pytest.mark.parametrize("ending", sound_file.FORMATS)
def test_a_file_has_the_format_of_its_name(tmp_path: Path, ending: str) -> None:
    path, samples = tmp_path / f"a{ending}", sine(440, 24000, 1.0)
    sound_file.write(path, samples, 24000)
    assert soundfile.info(path).format == sound_file.FORMATS[ending].format
    heard, rate = soundfile.read(path, dtype="float32")
    assert rate in (24000, 48000)  # Opus is decoded at any rate
    assert len(heard) / rate == pytest.approx(1.0, abs=0.1)
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.35, abs=0.03)


@pytest.mark.parametrize("name", ["a.m4a", "a.aac", "a", "a.wav.txt"])
def test_a_format_that_is_not_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="end its name with"):
        sound_file.write(tmp_path / name, sine(440, 24000), 24000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", sound_file.FORMATS)
@pytest.mark.parametrize("seconds", [1, 20])
def test_a_full_disk_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, seconds: int
) -> None:
    """Whether the disk is full while it grows, or when it is closed."""
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).uniform(-1, 1, 24000).astype(np.float32)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            sound_file.write(path, np.tile(noise, seconds), 24000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
