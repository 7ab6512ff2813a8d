// Plays 16-bit samples of one channel one after the other, as they come.

const LEAD = 0.05; // seconds from the arrival of samples to their sound where nothing sounds
const FULL = 32768;

export class Player {
  // To be made while a click is handled: browsers allow no sound before one. At the rate of the
  // audio, so that pieces are not resampled, each for itself.
  constructor(rate) {
    this.context = new AudioContext({ sampleRate: rate });
    this.samples = 0;
    this.silence = 0; // seconds in between, when audio came too late
    this.end = 0; // of what was added, by the clock of the context
    this.last = Promise.resolve();
  }

  get seconds() {
    return this.samples / this.context.sampleRate;
  }

  add(samples) {
    const { context } = this;
    const buffer = context.createBuffer(1, samples.length, context.sampleRate);
    const sound = buffer.getChannelData(0);
    samples.forEach((sample, at) => (sound[at] = sample / FULL));
    if (this.end < context.currentTime) {
      const late = context.currentTime + LEAD;
      if (this.samples) this.silence += late - this.end;
      this.end = late;
    }
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    this.last = new Promise((ended) => source.addEventListener("ended", ended));
    source.start(this.end);
    this.end += buffer.duration;
    this.samples += samples.length;
  }

  // Wait until all of it was heard.
  heard() {
    return this.last;
  }

  stop() {
    if (this.context.state !== "closed") this.context.close();
  }
}
