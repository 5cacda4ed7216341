// Runs in the browser's audio thread: hands over what the microphone hears, block by block, unchanged.
class Listen extends AudioWorkletProcessor {
  process(inputs) {
    if (inputs[0].length) this.port.postMessage(inputs[0].map((channel) => channel.slice()));
    return true;
  }
}
registerProcessor("listen", Listen);
