// Spectrogram, edit, nobody-speaks probability, features and segments on one time axis; a click plays from there.

import { bytes } from "./api.js";

const MAGMA = ["000004", "180f3d", "440f76", "721f81", "9e2f7f", "cd4071", "f1605d", "fd9668", "feca8d", "fcfdbf"];
const COLOURS = palette(MAGMA);
const STEPS_S = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const LEAST_TICK_PX = 64;
const EDIT_VEIL = 0.55;

export class Timeline {
  /** `root` holds the rows and the slider `#scrub`; `player` is the audio element they move. */
  constructor(root, player) {
    this.root = root;
    this.player = player;
    this.scrub = root.querySelector("#scrub");
    this.playhead = root.querySelector("#playhead");
    this.duration = 0;
    this.analysis = this.steered = null;
    new ResizeObserver(() => this.draw()).observe(root);
    this.scrub.addEventListener("pointerdown", (event) => this.#clicked(event));
    this.scrub.addEventListener("keydown", (event) => this.#pressed(event));
    for (const event of ["timeupdate", "seeked", "seeking", "loadedmetadata"]) {
      player.addEventListener(event, () => this.#follow());
    }
    player.addEventListener("play", () => this.#everyFrame());
  }

  /** Shows a recording; `steered` is null while it is on its way. `onlyInStock` are the stock segments left out. */
  show(analysis, steered, onlyInStock) {
    this.analysis = analysis;
    this.steered = steered;
    this.onlyInStock = onlyInStock;
    this.duration = analysis.duration;
    this.mel ??= null;
    if (this.melOf !== analysis) {
      this.melOf = analysis;
      this.mel = melImage(analysis.mel);
    }
    this.edit = steered && bytes(steered.edit);
    this.scrub.setAttribute("aria-valuemax", this.duration.toFixed(1));
    this.#layOut();
    this.draw();
    this.#follow();
  }

  /** Starts playing at a time in seconds. */
  playFrom(seconds) {
    this.#seek(seconds);
    this.player.play().catch(() => {}); // a browser that cannot play this format still shows everything
  }

  draw() {
    if (!this.analysis || !this.root.clientWidth) return;
    this.colours = getComputedStyle(document.documentElement);
    for (const { canvas, height, draw } of this.rows) {
      const width = canvas.clientWidth;
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      const context = canvas.getContext("2d");
      context.scale(ratio, ratio);
      draw.call(this, context, width, height);
    }
  }

  #layOut() {
    const steered = this.steered;
    const rows = [["log-mel", 128, this.#drawMel]];
    if (steered) {
      rows.push(["edit", 34, this.#drawEdit], ["nobody speaks", 26, this.#drawProbability]);
      for (const track of steered.features) rows.push([`feature ${track.feature}`, 18, drawTrack(track)]);
    }
    rows.push(["stock", 16, this.#drawStock]);
    if (steered) rows.push(["steered", 16, this.#drawSteered]);
    rows.push(["seconds", 22, this.#drawAxis]);
    for (const old of this.root.querySelectorAll(".label, canvas")) old.remove();
    this.rows = rows.map(([name, height, draw]) => {
      const label = document.createElement("span");
      label.className = "label";
      label.textContent = name;
      const canvas = document.createElement("canvas");
      if (draw !== this.#drawAxis) canvas.className = "band";
      canvas.style.height = `${height}px`;
      canvas.setAttribute("aria-hidden", "true");
      this.root.append(label, canvas);
      return { canvas, height, draw };
    });
  }

  #colour(name) {
    return this.colours.getPropertyValue(`--${name}`).trim();
  }

  #drawMel(context, width, height) {
    const { columns, column_s: columnS } = this.analysis.mel;
    context.imageSmoothingEnabled = true;
    context.drawImage(this.mel, 0, 0, (columns * columnS * width) / this.duration, height);
    if (!this.edit) return;
    context.fillStyle = this.#colour("paper");
    eachPixel(this.edit, this.steered.frame_s, this.duration, width, (x, level) => {
      context.globalAlpha = EDIT_VEIL * level;
      context.fillRect(x, 0, 1, height);
    });
    context.globalAlpha = 1;
  }

  #drawEdit(context, width, height) {
    context.fillStyle = this.#colour("edit");
    bars(context, this.edit, this.steered.frame_s, this.duration, width, height);
  }

  #drawProbability(context, width, height) {
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const { start, end, nobody_speaks: probability } of this.steered.windows) {
      const x = (start / this.duration) * width;
      const wide = ((Math.min(end, this.duration) - start) / this.duration) * width;
      context.fillStyle = this.#colour("line");
      context.fillRect(x, 0, 1, height);
      if (probability === null) continue;
      context.fillStyle = this.#colour("removed");
      context.globalAlpha = 0.45;
      context.fillRect(x, height * (1 - probability), wide, height * probability);
      context.globalAlpha = 1;
      context.fillStyle = this.#colour("ink");
      if (wide > 40) context.fillText(percent(probability), x + 6, height / 2 + 1);
    }
  }

  #drawStock(context, width, height) {
    for (const segment of this.analysis.stock.segments) {
      this.#bar(context, segment, width, height, this.onlyInStock.has(segment));
    }
  }

  #drawSteered(context, width, height) {
    for (const segment of this.steered.segments) this.#bar(context, segment, width, height, false);
  }

  #bar(context, { start, end }, width, height, hatched) {
    const x = (start / this.duration) * width;
    const wide = Math.max(2, ((Math.min(end, this.duration) - start) / this.duration) * width - 2);
    if (!hatched) {
      context.fillStyle = this.#colour("kept");
      context.fillRect(x, 3, wide, height - 6);
      return;
    }
    context.save();
    context.strokeStyle = this.#colour("removed");
    context.strokeRect(x + 0.5, 3.5, wide - 1, height - 7);
    context.beginPath();
    context.rect(x, 3, wide, height - 6);
    context.clip();
    context.beginPath();
    for (let at = x - height; at < x + wide; at += 6) {
      context.moveTo(at, height - 3);
      context.lineTo(at + height, 3);
    }
    context.stroke();
    context.restore();
  }

  #drawAxis(context, width, height) {
    const step = STEPS_S.find((s) => (s / this.duration) * width >= LEAST_TICK_PX) ?? this.duration;
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "bottom";
    context.fillStyle = this.#colour("faint");
    for (let second = 0; second <= this.duration; second += step) {
      const x = (second / this.duration) * width;
      context.textAlign = x < 10 ? "left" : x > width - 12 ? "right" : "center";
      context.fillRect(Math.min(width - 1, x), 0, 1, 5);
      context.fillText(String(Number(second.toFixed(1))), x, height);
    }
  }

  #clicked(event) {
    const box = this.scrub.getBoundingClientRect();
    this.playFrom(((event.clientX - box.left) / box.width) * this.duration);
  }

  #pressed(event) {
    const now = this.player.currentTime;
    const moves = {
      ArrowLeft: now - 1,
      ArrowDown: now - 1,
      ArrowRight: now + 1,
      ArrowUp: now + 1,
      PageDown: now - 5,
      PageUp: now + 5,
      Home: 0,
      End: this.duration,
    };
    if (event.key in moves) this.#seek(moves[event.key]);
    else if (event.key !== "Enter" && event.key !== " ") return;
    else if (this.player.paused) this.playFrom(now);
    else this.player.pause();
    event.preventDefault();
  }

  #seek(seconds) {
    this.player.currentTime = Math.max(0, Math.min(this.duration, seconds));
    this.#follow();
  }

  #everyFrame() {
    this.#follow();
    if (!this.player.paused) requestAnimationFrame(() => this.#everyFrame());
  }

  #follow() {
    if (!this.duration) return;
    const now = Math.min(this.player.currentTime, this.duration);
    this.playhead.style.left = `${(100 * now) / this.duration}%`;
    this.scrub.setAttribute("aria-valuenow", now.toFixed(1));
    this.scrub.setAttribute("aria-valuetext", this.#inWords(now));
  }

  #inWords(now) {
    const said = [`${now.toFixed(1)} of ${this.duration.toFixed(1)} seconds`];
    if (this.edit) {
      const frame = Math.min(this.edit.length - 1, Math.floor(now / this.steered.frame_s));
      said.push(`edited ${percent(this.edit[frame] / 255)}`);
      const inside = this.steered.windows.findLast(({ start }) => start <= now);
      if (inside && inside.nobody_speaks !== null) said.push(`nobody speaks ${percent(inside.nobody_speaks)}`);
    }
    return said.join(", ");
  }
}

export const percent = (share) => `${Math.round(100 * share)} %`;

function drawTrack(track) {
  const levels = bytes(track.levels);
  return function draw(context, width, height) {
    context.fillStyle = this.colours.getPropertyValue("--kept").trim();
    bars(context, levels, this.steered.frame_s, this.duration, width, height);
  };
}

function bars(context, levels, frameS, duration, width, height) {
  eachPixel(levels, frameS, duration, width, (x, level) => context.fillRect(x, height * (1 - level), 1, height * level));
}

/** Calls `draw(x, level)` for each pixel column with the highest level in it, from 0 to 1, unless that is 0. */
function eachPixel(levels, frameS, duration, width, draw) {
  const framesPerPixel = duration / frameS / width;
  for (let x = 0; x < width; x++) {
    const first = Math.floor(x * framesPerPixel);
    const end = Math.min(levels.length, Math.max(first + 1, Math.floor((x + 1) * framesPerPixel)));
    let highest = 0;
    for (let i = first; i < end; i++) highest = Math.max(highest, levels[i]);
    if (highest) draw(x, highest / 255);
  }
}

function melImage({ bins, columns, levels }) {
  const values = bytes(levels);
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = bins;
  const image = new ImageData(columns, bins);
  for (let bin = 0; bin < bins; bin++) {
    for (let column = 0; column < columns; column++) {
      const at = 4 * ((bins - 1 - bin) * columns + column); // low frequencies at the bottom
      image.data.set(COLOURS[values[bin * columns + column]], at);
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function palette(stops) {
  const colours = stops.map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, level) => {
    const place = (level / 255) * (colours.length - 1);
    const low = Math.min(colours.length - 2, Math.floor(place));
    const mix = colours[low].map((from, i) => Math.round(from + (colours[low + 1][i] - from) * (place - low)));
    return [...mix, 255];
  });
}
