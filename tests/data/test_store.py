import numpy as np

from cxgrad_jax.data import ImageStore, with_rotations


def test_rotations_are_classes_of_their_own():
    images = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3, 1)
    store = ImageStore(images, np.array([0, 2, 5], np.int32), ("a", "b"))
    turned = with_rotations(store)
    assert turned.num_classes == 8 and turned.smallest_class == 2
    assert turned.class_names == tuple(f"{name}/rot{angle}" for angle in (0, 90, 180, 270) for name in "ab")
    for k in range(4):
        for c in range(2):
            first, last = turned.offsets[2 * k + c : 2 * k + c + 2]
            expected = np.stack([np.rot90(image, k) for image in images[store.offsets[c] : store.offsets[c + 1]]])
            np.testing.assert_array_equal(turned.images[first:last], expected)
