// Images that go with the next message: chosen, pasted, dropped or from the camera, and
// sent as data URIs.

import { make } from "./dom.js";

// kinds are what servers decode; a picture of another kind would only be refused later.
const kinds = /^image\/(png|jpeg|webp|gif|bmp|x-ms-bmp)$/;

export class Images {
  // list shows them, and failed is told of a file that cannot be read.
  constructor(list, failed) {
    this.list = list;
    this.failed = failed;
    this.on = false; // the model reads images
    this.urls = [];
  }

  async add(files) {
    if (!this.on) return;
    for (const file of files) {
      if (!kinds.test(file.type)) {
        this.failed(`${file.name} is not an image in PNG, JPEG, WebP, GIF or BMP.`);
        continue;
      }
      try {
        this.urls.push(await read(file));
      } catch (err) {
        this.failed(`${file.name} cannot be read: ${err.message}.`);
      }
    }
    this.#show();
  }

  // take returns the images, which are of the message now.
  take() {
    const { urls } = this;
    this.put([]);
    return urls;
  }

  put(urls) {
    this.urls = urls;
    this.#show();
  }

  #show() {
    this.list.hidden = !this.urls.length;
    this.list.replaceChildren(...this.urls.map((url, i) => {
      const remove = make("button", "image");
      remove.type = "button";
      remove.title = "Remove the image";
      remove.append(picture(url));
      remove.addEventListener("click", () => this.put(this.urls.toSpliced(i, 1)));
      return remove;
    }));
  }
}

// picture is an element that shows an image.
export function picture(url) {
  const img = make("img");
  img.src = url;
  img.alt = "Image of the message";
  return img;
}

function read(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}
