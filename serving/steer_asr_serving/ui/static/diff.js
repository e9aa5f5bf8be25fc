// Which words two texts share. Nothing here touches the page.

const MOST_CELLS = 4_000_000;

/** The pieces of a text, words and what is between them: [{text, word}], where word is null or what is compared. */
export function pieces(text, language = "en") {
  const compared = (word) => word.toLocaleLowerCase().normalize("NFKC");
  if (typeof Intl.Segmenter !== "function") {
    return (text.match(/\s+|\S+/gu) ?? []).map((part) => ({ text: part, word: /\S/u.test(part) ? compared(part) : null }));
  }
  return Array.from(segmenter(language).segment(text), ({ segment, isWordLike }) => ({
    text: segment,
    word: isWordLike ? compared(segment) : null,
  }));
}

/** For two lists of words: [kept in a, kept in b], arrays of booleans of a longest common subsequence. */
export function common(a, b) {
  const keptA = new Array(a.length).fill(false);
  const keptB = new Array(b.length).fill(false);
  let start = 0;
  let endA = a.length;
  let endB = b.length;
  const keep = (i, j) => (keptA[i] = keptB[j] = true);
  while (start < endA && start < endB && a[start] === b[start]) keep(start, start++);
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) keep(--endA, --endB);
  const rows = endA - start;
  const columns = endB - start;
  if (rows * columns > MOST_CELLS) return [keptA, keptB]; // texts this long and different: everything has changed
  const length = new Uint16Array((rows + 1) * (columns + 1));
  const at = (i, j) => i * (columns + 1) + j;
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      length[at(i, j)] =
        a[start + i] === b[start + j]
          ? length[at(i + 1, j + 1)] + 1
          : Math.max(length[at(i + 1, j)], length[at(i, j + 1)]);
    }
  }
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (a[start + i] === b[start + j]) keep(start + i++, start + j++);
    else if (length[at(i + 1, j)] >= length[at(i, j + 1)]) i++;
    else j++;
  }
  return [keptA, keptB];
}

/** Two texts in runs: [[{text, kept}], [{text, kept}]], and how many words only one of them has. */
export function diff(textA, textB, language) {
  const all = [pieces(textA, language), pieces(textB, language)];
  const words = all.map((side) => side.filter(({ word }) => word !== null).map(({ word }) => word));
  const kept = common(...words);
  const runs = all.map((side, which) => runsOf(side, kept[which]));
  const changed = kept.map((side) => side.filter((is) => !is).length);
  return { runs, words: words.map((side) => side.length), changed };
}

function runsOf(side, kept) {
  const runs = [];
  let word = 0;
  let last = true; // what stands between words goes with the word before it
  for (const piece of side) {
    if (piece.word !== null) last = kept[word++];
    if (runs.length && runs.at(-1).kept === last) runs.at(-1).text += piece.text;
    else runs.push({ text: piece.text, kept: last });
  }
  return runs;
}

function segmenter(language) {
  try {
    return new Intl.Segmenter(language, { granularity: "word" });
  } catch {
    return new Intl.Segmenter(undefined, { granularity: "word" });
  }
}
