// Records from the microphone.

const TYPES = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];

export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

/** Starts recording: {stop(), done}, where done resolves to a Blob. Stops by itself after `longest` seconds. */
export async function record(longest, onTick) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const mimeType = TYPES.find((type) => MediaRecorder.isTypeSupported(type));
  const recorder = new MediaRecorder(stream, { mimeType });
  const chunks = [];
  const started = performance.now();
  const tick = setInterval(() => {
    const seconds = (performance.now() - started) / 1000;
    onTick(seconds);
    if (seconds >= longest - 1) stop();
  }, 200);
  const stop = () => recorder.state !== "inactive" && recorder.stop();
  const done = new Promise((resolve, reject) => {
    recorder.ondataavailable = ({ data }) => chunks.push(data);
    recorder.onerror = ({ error }) => reject(error);
    recorder.onstop = () => resolve(new Blob(chunks, { type: recorder.mimeType }));
  }).finally(() => {
    clearInterval(tick);
    for (const track of stream.getTracks()) track.stop();
  });
  recorder.start();
  return { stop, done };
}

/** A name for a recording, with the ending that goes with its type. */
export function nameFor(blob) {
  const ending = ["webm", "ogg", "mp4"].find((type) => blob.type.includes(type)) ?? "webm";
  return `recording.${ending}`;
}
