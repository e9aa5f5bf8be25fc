// The two texts with what differs marked, and the table of segments. Text gets into the page as text only.

import { diff, pieces } from "./diff.js";
import { percent } from "./timeline.js";

const NOTHING = "(writes nothing)";

/** Fills an element with a text, parts of which are in `tag`. */
function write(element, runs, tag) {
  element.replaceChildren(
    ...runs.map(({ text, kept }) => {
      if (kept) return document.createTextNode(text);
      return make(tag, text);
    }),
  );
  if (!runs.length) nothing(element);
}

function nothing(element) {
  element.replaceChildren(make("span", NOTHING, "nothing"));
}

/** Shows both texts; without a steered one, the stock text as it is. Returns what changed, in words. */
export function showTexts(stockElement, steeredElement, stock, steered, language) {
  if (!steered) {
    if (stock.text) stockElement.replaceChildren(document.createTextNode(stock.text));
    else nothing(stockElement);
    return "";
  }
  const { runs, words, changed } = diff(stock.text, steered.text, language);
  write(stockElement, runs[0], "del");
  write(steeredElement, runs[1], "ins");
  const [removed, added] = changed;
  if (!words[0] && !words[1]) return "Neither writes a word.";
  if (!removed && !added) return "Both write the same words.";
  const parts = [`Steering left out ${removed} of ${words[0]} words`];
  if (added) parts.push(`wrote ${added} of its own`);
  return `${parts.join(" and ")}.`;
}

/** The stock segments most of whose words are not in the steered text. */
export function leftOut(stock, steered, language) {
  if (!steered) return new Set();
  const left = stock.segments.filter((segment) => {
    const { words, changed } = diff(segment.text, overlapping(segment, steered), language);
    return words[0] > 0 && 2 * changed[0] > words[0];
  });
  return new Set(left);
}

const overlapping = ({ start, end }, { segments }) =>
  segments
    .filter((other) => other.end > start - 1 && other.start < end + 1)
    .map(({ text }) => text)
    .join("");

/** Fills the table's body: the segments of both in the order of time; one that both wrote alike is one row. */
export function fillTable(body, stock, steered, language, onPlay) {
  const rows = stock.segments.map((segment) => ({ segment, by: "stock" }));
  for (const segment of steered?.segments ?? []) {
    const same = rows.find(({ segment: other, by }) => by === "stock" && alike(segment, other));
    if (same) Object.assign(same, { by: "both", segment });
    else rows.push({ segment, by: "steered" });
  }
  rows.sort((a, b) => a.segment.start - b.segment.start);
  body.replaceChildren(...rows.map(({ segment, by }) => row(segment, by, language, onPlay)));
  if (!rows.length) {
    const cell = make("td", "No segments: nothing was written.", "nothing");
    cell.colSpan = 8;
    body.replaceChildren(wrap("tr", cell));
  }
}

const alike = (a, b) => a.text === b.text && Math.abs(a.start - b.start) < 0.05 && Math.abs(a.end - b.end) < 0.05;

function row(segment, by, language, onPlay) {
  const times = `${segment.start.toFixed(1)}–${segment.end.toFixed(1)}`;
  const play = make("button", times);
  play.type = "button";
  play.setAttribute("aria-label", `Play from second ${segment.start.toFixed(1)} to ${segment.end.toFixed(1)}`);
  play.addEventListener("click", () => onPlay(segment.start));
  const text = make("td", segment.text.trim() || NOTHING, "text");
  text.lang = pieces(segment.text).length ? language : "en";
  return wrap(
    "tr",
    wrap("th", play, "row"),
    make("td", by),
    text,
    make("td", probability(segment.nobody_speaks), "number"),
    make("td", probability(segment.edited_share), "number"),
    make("td", probability(segment.no_speech_prob), "number"),
    make("td", segment.avg_logprob === null ? "–" : segment.avg_logprob.toFixed(2), "number"),
    make("td", segment.features.slice(0, 3).join(", ") || "–", "number"),
  );
}

const probability = (value) => (value === null ? "–" : percent(value));

function make(tag, text, className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function wrap(tag, first, ...rest) {
  const element = document.createElement(tag);
  if (rest[0] === "row") {
    element.scope = "row";
    rest = [];
  }
  element.append(first, ...rest);
  return element;
}
