// Files that a person chose, as the interface takes them.

// The file as a data URI. The server looks at the content: a type that the browser does not know would only be in the way.
export function dataUri(file: File): Promise<string> {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => {
      const data = String(reader.result).split(",")[1] ?? "";
      if (data) done(`data:${file.type || "image/png"};base64,${data}`);
      else fail(new Error(`${file.name} is empty.`));
    };
    // A folder, or a file that is gone.
    reader.onerror = () => fail(new Error(`${file.name} cannot be read: choose a file that holds one image.`));
    reader.readAsDataURL(file);
  });
}
