// The request that would give the same answer, for a shell and for Python. The key is never in it.

/** {curl, python} for what is on the page. */
export function snippets({ name, model, steer, language, needsKey }) {
  const base = new URL("v1", document.baseURI).href;
  const fields = { model, steer, language };
  return { curl: curl(base, name, fields, needsKey), python: python(base, name, fields, needsKey) };
}

function curl(base, name, fields, needsKey) {
  const lines = [`curl ${quoted(`${base}/audio/transcriptions`)}`];
  if (needsKey) lines.push('-H "Authorization: Bearer $STEER_ASR_API_KEY"');
  lines.push(`-F ${quoted(`file=@"${name.replace(/["\\]/gu, "\\$&")}"`)}`);
  const all = { ...fields, response_format: "verbose_json" };
  for (const [field, value] of Object.entries(all)) lines.push(`--form-string ${quoted(`${field}=${value}`)}`);
  return lines.join(" \\\n  ");
}

function python(base, name, { model, steer, language }, needsKey) {
  const key = needsKey ? 'os.environ["STEER_ASR_API_KEY"]' : '"unused"';
  return `${needsKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(
    base_url=${literal(base)},
    api_key=${key},
)
with open(${literal(name)}, "rb") as file:
    answer = client.audio.transcriptions.create(
        model=${literal(model)},
        file=file,
        language=${literal(language)},
        response_format="verbose_json",
        extra_body={"steer": ${literal(steer)}},
    )
print(answer.text, answer.speech_detected)
`;
}

/** One word for a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A string for Python, which has JSON's escapes. */
const literal = (text) => JSON.stringify(text);
