// The camera: a dialog with its picture, of which a frame becomes a file.

import { $ } from "./dom.js";

// hasCamera is whether the browser may ask for one: not without HTTPS, but for localhost.
export const hasCamera = !!navigator.mediaDevices?.getUserMedia;

// camera returns what opens the dialog. taken gets the file, and failed is told of a camera
// that cannot be used.
export function camera(taken, failed) {
  const dialog = $("camera-dialog"), view = $("camera-view"), shoot = $("shoot");
  const end = () => {
    for (const track of view.srcObject?.getTracks() ?? []) track.stop();
    view.srcObject = null;
    shoot.disabled = true;
  };
  dialog.addEventListener("close", end);
  view.addEventListener("playing", () => { shoot.disabled = false; });
  shoot.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = view.videoWidth;
    canvas.height = view.videoHeight;
    canvas.getContext("2d").drawImage(view, 0, 0);
    dialog.close();
    canvas.toBlob((data) => taken(new File([data], "camera.jpg", { type: data.type })), "image/jpeg", 0.92);
  });
  return async () => {
    dialog.showModal();
    try {
      view.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
      if (!dialog.open) end(); // closed before the camera was allowed
    } catch (err) {
      dialog.close();
      failed(`The camera cannot be used: ${err.message}.`);
    }
  };
}
