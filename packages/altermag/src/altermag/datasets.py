"""The outside data set of the experiment and the tests by name, for `tenfold.data`."""

from __future__ import annotations

from tenfold.data import URL, Dataset

_COMMIT = "07bff47e20176365d8e5f1e5bc93d52215ca30d4"
_EXAMPLES = ("0.800_MnTe.mcif", "1.237_VCl2.mcif")
"""These two are in the repository's examples, the others in its test set."""

_FILES = {
    "0.1091_La2O3Mn2Se2.mcif": "d503587a12168d719e30363d22c0ca26c8fba0bcad269031ed72938411ee1d36",
    "0.1112_CoNb4Se8.mcif": "59e47fe629dae5310a7d42c29e297f47c1f96a4f7c59974a912fe3266551f1c2",
    "0.15_MnF2.mcif": "0c648955c9cae2e1188f2cdf5f4840fba981d0a2af84ad55fd2dcf7d93ab6293",
    "0.163_MnPS3.mcif": "ef48ec4626199f233b68420a6a91223c1b654bb6f19d46f0b45c015f68c9d4f1",
    "0.178_CoF2.mcif": "60587877d40cfbdd4111320ec1551d5ec83be3660e2cad74d9a4babf12725a23",
    "0.180_MnPSe3.mcif": "12e22a6239f4383ceddeb2858be17002f0e7e10c182b75255733f13c0b002010",
    "0.20_MnTe2.mcif": "0fbf0d403b24c005228ae6b33c50ee97939ebc5cadeea30859f8131d43446075",
    "0.21_PbNiO3.mcif": "6be36bae4e3711150b90a19b40dfec263ec371f85953ca55737079f2e2a92b7c",
    "0.222_CuMnAs.mcif": "1ceb2501a106975468215358d7aeab48905f16d80e206356e9f7922d38601463",
    "0.299_Fe2O3.mcif": "e26f23c5ee2a3a1e35b0eaa5f9e531b6af0d71d9e3d77e0b2b2977d2e0790e31",
    "0.36_NiF2.mcif": "348c2fbc57bc6dfa6a32e05c1c7e19f59414bfbc9fee53719eb25d553355741f",
    "0.433_KMnF3.mcif": "568706b75e9f5837111d5b5abb65f79785aef4d9031f5300ea4521afa80c594f",
    "0.528_CrSb.mcif": "40a7843210cf3adc26b1b68b1b37f6973770feb1db7d5f45104f3949088f2046",
    "0.59_Cr2O3.mcif": "ca2baf53cd7f284402bbab7e1609c9a7bf1e3066aaef5fcffc265a22e78464cf",
    "0.607_RuO2.mcif": "15cae33bd2f1ee1b0332a634325a954d829d56ec80a5efe96f9b710714abcaf5",
    "0.642_LaMnO3.mcif": "ff9f65f25c4b8b19899e3449a6b1f4d21b3a790330e353abbbd6049dae94e999",
    "0.65_Fe2O3-alpha.mcif": "65b114fc964c3e463c89dd0363c08760bd1deecbc1302d3e45cc3467a266e959",
    "0.712_VNb3S6.mcif": "a59575584d2ff8a95f094a07351473b0ec2ef5129371366100578772f229e6bc",
    "0.800_MnTe.mcif": "6a8377dc2c9bf94a0ed81b33362a1138633dfe40aad78183a557217f3f25b5f0",
    "0.834_CrSbSe3.mcif": "fd3d114e39b99237c30678eef24cadbe957935e2d0c1c96979c3341e9c679d15",
    "1.183_FePS3.mcif": "3fcd7bd2d3ec6c266010fb4806eb369bcd6ad8e0a38661849ec478dd39374802",
    "1.228_RuCl3.mcif": "5ef8379bbb99e701ac53f1aad6c96b77c370b954981107430b6536b7ab2c45cc",
    "1.230_NiPS3.mcif": "40418e8b97893a8b68058410670fc90e66bec9f348b63f27a38371f1eacc82eb",
    "1.237_VCl2.mcif": "518940763a2a960e144e32f2d44649e4850f0336519cabb4f129a49776239d78",
    "1.238_VBr2.mcif": "79ca883b2267d0f8abcd6bfd2b1184113f58c0deca936736c0644378f7fac488",
    "1.239_MnBr2.mcif": "70b635f24811df49267496d61ef6f69cb0c446f1b2d0f38ea1a96d84c4667fd3",
    "1.240_FeI2.mcif": "f6453d53e567f8a2134b0283066e619a34b2b7793efe64895dacb0490d5192cd",
    "1.241_FeCl2.mcif": "af07e7d8e3d8ae8f6f4c4f39f279eb3a295da8f52bb84e6984874be830838c76",
    "1.242_FeBr2.mcif": "abda51d9a290667f80118427de07e21240b0a55c884c0bee1dc6b43f28b8b1a9",
    "1.244_CrCl3.mcif": "b25e8da51fc2f880c641df3139c067bb751f684d241198c93b449146f04ed14f",
    "1.245_CoBr2.mcif": "987fcd24909d17bee13dd8616b08b90e4095b6e568de451e2edf929ea61b95db",
    "1.247_NiCl2.mcif": "3a7c63af67b94a86f2711db6b360d7b88fd01e44db7d80cfaa7e16e51296c245",
    "1.248_NiBr2.mcif": "d0c7721eff2947a570e078d31601c5709f7fb26c20103cf0ded9537934dd4ff9",
    "1.264_CoPS3.mcif": "2f55defa95c4503285185d7dd996368690cef1182a595ce7e91b6fed5101b0f8",
    "1.305_Mn5Si3.mcif": "093044fe2479ca82cf76aca1a580a0ecee80f987b4b6021616083b4efe9b6d35",
    "1.308_MnBi2Te4.mcif": "e9981e6cad9563b4afc04869f7b8dd7789b75f061a260d070ca1f296ed30b587",
    "1.37_VOCl.mcif": "7c1a845b2d8339d8f8b1df85f77a328f1d008e79fcfda4a49d1f99eeb65746f6",
    "1.440_CrPS4.mcif": "e903be54e98ccb688a30231a76025052eb9605ace38916a5d45ad15e1de67fb6",
    "1.6_NiO.mcif": "1db0700c5c96d502f5e1012fa833a9567d443511c1f26c332717b876fde8a356",
    "1.782_FeBr3.mcif": "65cf8803ee873606e69782edcd40b6fdeaf7af5967641749c281843df8247a38",
    "1.786_RuBr3.mcif": "d08c971ea630fc17d4673e427f0806478695d64c2f4078ce8eef15b0393f8221",
    "1.802_CrSBr.mcif": "6782e0bd258cd01bd53686eb7357d38e9b05110479b00c7b908d93363abeec2c",
}


def _url(file: str) -> URL:
    folder = "examples" if file in _EXAMPLES else "tests/testset/mcif_241130_no2186"
    return URL(f"https://raw.githubusercontent.com/LiuQH-lab/FindSpinGroup/{_COMMIT}/{folder}/{file}")


DATASETS = (
    Dataset(
        name="magndata-42",
        description="42 measured magnetic structures of MAGNDATA as magCIF, from FindSpinGroup's test set",
        files=_FILES,
        folder="altermag/mcif",
        licence="the repository is Apache-2.0; MAGNDATA states no terms for passing its files on",
        citation="S. V. Gallego et al., J. Appl. Cryst. 49, 1750 (2016); each file names its publication",
        sources=tuple(_url(file) for file in _FILES),
    ),
)
