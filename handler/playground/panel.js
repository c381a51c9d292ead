// Panels at the sides. Where there is room they stand beside the conversation;
// on a narrow screen they lie over it, and keep the focus until they are closed.

const wide = matchMedia("(min-width: 60rem)");

// panel lets a button open and close a dialog. leave closes it if it lies over
// what the reader goes on to.
export function panel(dialog, button) {
  const isOpen = () => dialog.open;
  const show = () => button.setAttribute("aria-expanded", isOpen());
  const open = () => {
    if (isOpen()) return;
    if (wide.matches) dialog.open = true; // show() would take the focus
    else dialog.showModal();
    show();
  };
  const close = () => {
    dialog.close();
    show();
  };
  button.addEventListener("click", () => (isOpen() ? close() : open()));
  dialog.addEventListener("close", show);
  dialog.addEventListener("click", (e) => { if (e.target === dialog && dialog.matches(":modal")) close(); });
  wide.addEventListener("change", () => { if (isOpen()) close(); });
  return { open, close, leave: () => { if (dialog.matches(":modal")) close(); } };
}
