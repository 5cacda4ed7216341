"use strict";
// Everything shown is set as text: names of files, scenes and events are never markup.

const $ = (id) => document.getElementById(id);
const made = (tag, text, className) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};
const percent = (p) => `${(100 * p).toFixed(p > 0.995 || p < 0.095 ? 1 : 0)} %`;
let limit = 0;

async function begin() {
  const about = await (await fetch("model")).json();
  limit = about.limit_bytes;
  $("about").textContent =
    about.scenes === 0
      ? `${about.name}: ${about.events} events, no scenes`
      : `${about.name}: ${about.scenes} scenes, ${about.events} events; ` +
        (!about.calibrated
          ? "not calibrated, so it never says that it is unsure"
          : about.always_unsure
            ? "marks every answer as unsure, for its probability does not tell right from wrong"
            : "marks answers that it is unsure of");
  if (about.scenes === 0) document.querySelector("h1").textContent = "What is to be heard?";
  $("limit").textContent = `Up to ${Math.round(limit / 2 ** 20)} MB. Nothing leaves this computer.`;
}

async function ask(name, body) {
  const card = made("article", undefined, "answer");
  card.append(made("h2", name));
  const state = made("p", "listening …", "state");
  card.append(state);
  $("answers").prepend(card);
  if (limit && body.size > limit) {
    return fail(state, `larger than ${Math.round(limit / 2 ** 20)} MB`);
  }
  try {
    const response = await fetch("predict?name=" + encodeURIComponent(name), { method: "POST", body });
    const answer = await response.json();
    if (answer.error) return fail(state, answer.error);
    state.remove();
    show(card, answer);
  } catch (error) {
    fail(state, "the server does not answer; is it still running?");
  }
}

function fail(state, why) {
  state.textContent = `Not answered: ${why}`;
  state.className = "state failed";
}

function show(card, answer) {
  if (answer.scene !== null) {
    const scene = made("p", undefined, "scene");
    scene.append(made("strong", answer.scene), made("span", " " + percent(answer.probability)));
    if (answer.unsure) scene.append(made("span", "unsure", "unsure"));
    card.append(scene, bars("The other scenes", Object.entries(answer.scenes).slice(1, 4)));
  }
  if (Object.keys(answer.events).length) card.append(bars("Events", Object.entries(answer.events)));
  if (answer.spans && answer.spans.length) card.append(timeline(answer));
  if (answer.why_text) card.append(made("h3", "Why"), made("p", answer.why_text));
  const notes = [`${answer.seconds.toFixed(1)} s`, ...answer.notes].join("; ");
  card.append(made("p", notes, "notes"));
}

function bars(title, entries) {
  const section = made("section");
  section.append(made("h3", title));
  for (const [name, p] of entries) {
    const row = made("div", undefined, "row");
    const bar = made("div", undefined, "bar");
    const fill = made("div", undefined, "fill");
    fill.style.width = `${100 * p}%`;
    bar.append(fill);
    row.append(made("span", name, "name"), bar, made("span", percent(p), "value"));
    section.append(row);
  }
  return section;
}

function timeline(answer) {
  const section = made("section");
  section.append(made("h3", `Over time, 0 to ${answer.seconds.toFixed(1)} s`));
  for (const name of new Set(answer.spans.map((span) => span.event))) {
    const row = made("div", undefined, "row");
    const bar = made("div", undefined, "bar");
    const mine = answer.spans.filter((span) => span.event === name);
    for (const span of mine) {
      const piece = made("div", undefined, "span");
      piece.style.left = `${(100 * span.onset) / answer.seconds}%`;
      piece.style.width = `${(100 * (span.offset - span.onset)) / answer.seconds}%`;
      piece.title = `${span.onset.toFixed(2)} to ${span.offset.toFixed(2)} s`;
      bar.append(piece);
    }
    const heard = mine.reduce((sum, span) => sum + span.offset - span.onset, 0);
    row.append(made("span", name, "name"), bar, made("span", `${heard.toFixed(1)} s`, "value"));
    section.append(row);
  }
  return section;
}

// Recording: samples as the microphone gives them (no gain control, no noise suppression), as a WAV file.

let recording = null;

async function record() {
  if (recording) return stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const context = new AudioContext();
    await context.audioWorklet.addModule("listen.js");
    const node = new AudioWorkletNode(context, "listen", { numberOfOutputs: 0 });
    recording = { stream, context, blocks: [], began: Date.now() };
    node.port.onmessage = (message) => recording && keep(message.data);
    context.createMediaStreamSource(stream).connect(node);
    recording.timer = setInterval(() => {
      $("record").textContent = `Stop (${Math.round((Date.now() - recording.began) / 1000)} s)`;
    }, 250);
    $("record").classList.add("on");
    $("record").textContent = "Stop";
  } catch (error) {
    $("trouble").textContent = `No recording: ${error.message}`;
  }
}

function keep(block) {
  recording.blocks.push(block);
  const samples = recording.blocks.length * block[0].length * block.length;
  if (limit && 2 * samples + 44 > 0.95 * limit) stop();
}

function stop() {
  const { stream, context, blocks, timer } = recording;
  recording = null;
  clearInterval(timer);
  stream.getTracks().forEach((track) => track.stop());
  context.close();
  $("record").classList.remove("on");
  $("record").textContent = "Record";
  const at = new Date().toTimeString().slice(0, 8);
  if (blocks.length) ask(`recording at ${at}`, wav(blocks, context.sampleRate));
}

function wav(blocks, rate) {
  const channels = blocks[0].length;
  const count = blocks.reduce((sum, block) => sum + block[0].length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count * channels));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * count * channels, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate * channels, true);
  view.setUint16(32, 2 * channels, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * count * channels, true);
  let at = 44;
  for (const block of blocks) {
    for (let i = 0; i < block[0].length; i++) {
      for (const channel of block) {
        view.setInt16(at, Math.max(-32768, Math.min(32767, Math.round(32768 * (channel[i] || 0)))), true);
        at += 2;
      }
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

async function askAll(files) {
  for (const file of files) await ask(file.name, file);
}

$("file").addEventListener("change", (event) => {
  askAll([...event.target.files]);
  event.target.value = "";
});
$("record").addEventListener("click", record);
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  askAll([...event.dataTransfer.files]);
});
begin();
