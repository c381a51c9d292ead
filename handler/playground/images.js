// Images that go with the next message: chosen, pasted, dropped or from the camera, and
// sent as data URIs.

import { make } from "./dom.js";

// kinds are what servers decode; a picture of another kind would only be refused later.
const kinds = /^image\/(png|jpeg|webp|gif|bmp|x-ms-bmp)$/;

// Larger files are made smaller: the bodies of requests have a limit, and so has what a
// browser keeps of chats. Models see no more of an image than about so many pixels a side.
const mostBytes = 1 << 20, mostSide = 2048;

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
        this.urls.push(await read(file.size > mostBytes ? await smaller(file) : file));
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

async function smaller(file) {
  const image = await createImageBitmap(file);
  const scale = Math.min(1, mostSide / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // where it is transparent: JPEG is not
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
}

function read(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}
